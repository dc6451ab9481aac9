use serde_json::{Value, json};

use super::*;
use crate::fault::SourceText;

#[test]
fn every_word_of_the_schemas_is_known_here() {
    for kind in ["RemoteInstance", "VersionBlock"] {
        assert!(rules_of(kind).is_ok(), "{:?}", rules_of(kind).err());
    }
    let error = Rule::read(&json!({"type": "string", "multipleOf": 3})).unwrap_err();
    assert!(error.contains("multipleOf"));
}

/// Values just inside and just outside of each limit of a schema, tried at one rule at a time.
fn probes(schema: &Value, out: &mut Vec<(Value, Value, bool)>) {
    let Some(words) = schema.as_object() else { return };
    let mut text = |length: u64, fits: bool| {
        let bare =
            json!({"type": "string", "minLength": schema["minLength"], "maxLength": schema["maxLength"]});
        out.push((bare, Value::String("a".repeat(usize::try_from(length).unwrap())), fits));
    };
    if let Some(most) = schema["maxLength"].as_u64() {
        text(most, true);
        text(most + 1, false);
    }
    if let Some(least) = schema["minLength"].as_u64().filter(|least| *least > 0) {
        text(least, true);
        text(least - 1, false);
    }
    for (word, step) in [("minimum", -1), ("maximum", 1)] {
        if let Some(limit) = schema[word].as_f64() {
            #[allow(clippy::cast_possible_truncation)]
            let limit = limit as i64;
            out.push((json!({"type": "integer", word: limit}), json!(limit), true));
            out.push((json!({"type": "integer", word: limit}), json!(limit + step), false));
        }
    }
    if let Some(most) = schema["maxItems"].as_u64() {
        let list = |count: u64| Value::Array((0..count).map(|at| json!(at.to_string())).collect());
        let bare = json!({"type": "array", "maxItems": most, "x-kubernetes-list-type": "set"});
        out.push((bare.clone(), list(most), true));
        out.push((bare.clone(), list(most + 1), false));
        out.push((bare, json!(["same", "same"]), schema["x-kubernetes-list-type"] != "set"));
    }
    for (word, inside) in words {
        match word.as_str() {
            "properties" => inside.as_object().unwrap().values().for_each(|inside| probes(inside, out)),
            "items" => probes(inside, out),
            _ => {}
        }
    }
}

#[test]
fn limits_hold_where_the_schema_puts_them() {
    let mut cases = Vec::new();
    for definition in crds::definitions() {
        let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
        probes(&schema["openAPIV3Schema"]["properties"]["spec"], &mut cases);
    }
    assert!(cases.len() > 40, "{}", cases.len());
    for (mut schema, value, fits) in cases {
        schema.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        if schema["x-kubernetes-list-type"] == "set" && value == json!(["same", "same"]) && fits {
            continue;
        }
        let places = Places::new(std::sync::Arc::new(SourceText::new("a.json", value.to_string())));
        let node = crate::document::read(&places).documents.remove(0);
        let faults = check(&node, &Rule::read(&schema).unwrap(), "spec", &places);
        assert_eq!(faults.is_empty(), fits, "{schema} {value} {faults:?}");
    }
}
