//! The JSON Schema of the document, made from its types.
//!
//! **Invariant:** every keyword it uses is one that `shape.rs` understands; a test walks it to make sure.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::Value;

use crate::document::Document;

/// The JSON Schema (draft 2020-12) of `lifeboat.toml`. Beside the standard's keywords it has `x-minimum` and
/// `x-maximum` (ranges of durations) and `x-whole-seconds` (who counts in them), which other readers ignore.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().for_deserialize();
    let mut schema = settings.into_generator().into_root_schema_for::<Document>();
    RecursiveTransform(without_null).transform(&mut schema);
    RecursiveTransform(describe_tag).transform(&mut schema);
    schema.insert("title".to_owned(), "lifeboat.toml".into());
    schema.to_value()
}

/// TOML has no null: an optional key is there or is not.
fn without_null(schema: &mut Schema) {
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    if let Some(Value::Array(kinds)) = schema.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [only] = kinds.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            for (key, value) in only {
                // What is said of the key goes before what is said of its type.
                if schema.get(&key).is_none() {
                    schema.insert(key, value);
                }
            }
        }
    }
}

/// The key that tells the branches of a choice apart has no doc comment of its own: it takes that of its branch.
fn describe_tag(schema: &mut Schema) {
    let about = schema.get("description").cloned();
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for property in properties.into_iter().flat_map(|p| p.values_mut()).filter_map(Value::as_object_mut) {
        if property.contains_key("const")
            && let Some(about) = &about
        {
            property.entry("description").or_insert_with(|| about.clone());
        }
    }
}
