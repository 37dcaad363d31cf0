//! The ImageBuild API: spec, status, validation rules, conditions and reasons
