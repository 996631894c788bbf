//! The JSON Schema: what the types say, complete, and understood by the walk that checks documents.

use std::fs;
use std::path::Path;

use lifeboat_config::schema;
use serde_json::{Map, Value};

/// The keywords the walk understands, and those that only speak to people and editors.
const KEYWORDS: [&str; 24] = [
    "$defs",
    "$ref",
    "$schema",
    "additionalProperties",
    "const",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "oneOf",
    "pattern",
    "properties",
    "required",
    "title",
    "type",
    "uniqueItems",
    "x-minimum",
];
const MORE_KEYWORDS: [&str; 2] = ["x-maximum", "x-whole-seconds"];

/// Calls `visit` with every schema in `schema`.
fn walk(schema: &Value, visit: &mut dyn FnMut(&Map<String, Value>)) {
    let Some(object) = schema.as_object() else { return };
    visit(object);
    for keyword in ["$defs", "properties"] {
        for inner in object.get(keyword).and_then(Value::as_object).into_iter().flat_map(Map::values) {
            walk(inner, visit);
        }
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(inner) = object.get(keyword) {
            walk(inner, visit);
        }
    }
    for inner in object.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
        walk(inner, visit);
    }
}

/// `LIFEBOAT_BLESS=1` writes it anew.
#[test]
fn the_committed_schema_is_what_the_types_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("lifeboat.schema.json");
    let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("LIFEBOAT_BLESS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == text,
        "config/lifeboat.schema.json is out of date"
    );
}

#[test]
fn every_keyword_is_understood() {
    walk(&schema(), &mut |object| {
        for keyword in object.keys() {
            let known = KEYWORDS.contains(&keyword.as_str()) || MORE_KEYWORDS.contains(&keyword.as_str());
            assert!(known, "the walk does not know {keyword} in {object:?}");
        }
    });
}

#[test]
fn every_key_is_described_and_every_table_closed() {
    let (schema, mut tables, mut keys) = (schema(), 0, 0);
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    walk(&schema, &mut |object| {
        let Some(properties) = object.get("properties").and_then(Value::as_object) else { return };
        tables += 1;
        assert_eq!(object.get("additionalProperties"), Some(&Value::Bool(false)), "{object:?}");
        for (key, about) in properties {
            keys += 1;
            let text = about.get("description").and_then(Value::as_str).unwrap_or_default();
            assert!(text.ends_with('.'), "{key} is not described: {about}");
        }
    });
    assert!(tables > 15 && keys > 90, "{tables} tables with {keys} keys");
}

/// A duration's default and bounds are durations themselves, and its default is within them.
#[test]
fn durations_say_their_unit_and_range() {
    let mut durations = 0;
    walk(&schema(), &mut |object| {
        if object.get("$ref").is_some_and(|r| r == "#/$defs/Length") {
            durations += 1;
            for keyword in ["default", "x-minimum", "x-maximum"] {
                let Some(value) = object.get(keyword) else { continue };
                serde_json::from_value::<lifeboat_config::Length>(value.clone()).unwrap();
            }
        }
    });
    assert!(durations > 12, "{durations}");
}
