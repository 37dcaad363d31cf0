//! One build step in namespaces of its own
