//! Subset comparison of JSON documents.

use serde_json::Value;

/// Objects are compared key by key, everything else for equality; a wanted `null` means absent or empty.
pub(super) fn subset(want: &Value, found: &Value, path: &str, errors: &mut Vec<String>) {
    let Value::Object(want) = want else {
        if want != found {
            errors.push(format!("{path}: expected {want}, got {found}"));
        }
        return;
    };
    // Images write an empty config as null.
    if !found.is_object() && !found.is_null() {
        errors.push(format!("{path}: expected an object, got {found}"));
        return;
    }
    for (key, want) in want {
        let path = format!("{path}.{key}");
        match (want, found.get(key)) {
            (Value::Null, None) => {}
            (Value::Null, Some(found)) if is_empty(found) => {}
            (Value::Null, Some(found)) => errors.push(format!("{path}: expected it absent, got {found}")),
            (want, None) => errors.push(format!("{path}: expected {want}, it is absent")),
            (want, Some(found)) => subset(want, found, &path, errors),
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
