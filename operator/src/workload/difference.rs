//! Is an object as it shall be? Pure.
//!
//! The API server adds defaults and others add fields of their own, so what is wanted must be *in* the object; it need not
//! be all of it.

use serde_json::Value;

use super::amount::same_amount;

/// The first member that is not as wanted, e.g. `spec.replicas`.
pub(crate) fn difference(wanted: &Value, live: &Value) -> Option<String> {
    at(wanted, live, "", false)
}

fn at(wanted: &Value, live: &Value, path: &str, amounts: bool) -> Option<String> {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted.iter().find_map(|(name, wanted)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let amounts = amounts || matches!(name.as_str(), "requests" | "limits" | "sizeLimit");
            match live.get(name) {
                Some(live) => at(wanted, live, &path, amounts),
                // What is empty, the API server leaves out.
                None => (!is_empty(wanted)).then_some(path),
            }
        }),
        (Value::Array(wanted), Value::Array(live)) if wanted.len() == live.len() => {
            let mut pairs = wanted.iter().zip(live).enumerate();
            pairs.find_map(|(index, (wanted, live))| at(wanted, live, &format!("{path}[{index}]"), amounts))
        }
        (Value::String(wanted), Value::String(live)) if amounts => {
            (wanted != live && !same_amount(wanted, live)).then(|| path.to_owned())
        }
        _ => (wanted != live).then(|| path.to_owned()),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wanted_must_be_in_the_object() {
        let wanted =
            json!({"spec": {"replicas": 2, "ports": [{"port": 1}], "selector": {"a": "b"}, "none": {}}});
        let live = json!({
            "spec": {"replicas": 2, "ports": [{"port": 1, "protocol": "TCP"}], "selector": {"a": "b"}, "more": 1},
            "status": {},
        });
        assert_eq!(difference(&wanted, &live), None);
        for (pointer, value, path) in [
            ("/spec/replicas", json!(3), "spec.replicas"),
            ("/spec/ports/0/port", json!(2), "spec.ports[0].port"),
            ("/spec/ports", json!([]), "spec.ports"),
            ("/spec/selector", json!({}), "spec.selector.a"),
            ("/spec/selector", json!(null), "spec.selector"),
        ] {
            let mut changed = live.clone();
            *changed.pointer_mut(pointer).unwrap() = value;
            assert_eq!(difference(&wanted, &changed).as_deref(), Some(path));
        }
        let missing = difference(&wanted, &json!({"spec": {}}));
        assert!(missing.is_some_and(|path| path.starts_with("spec.")));
    }

    #[test]
    fn amounts_may_be_spelt_otherwise_and_other_texts_may_not() {
        let object = |amount: &str| json!({"limits": {"cpu": amount}, "emptyDir": {"sizeLimit": amount}});
        assert_eq!(difference(&object("0.5"), &object("500m")), None);
        assert_eq!(difference(&object("0.5"), &object("501m")).as_deref(), Some("emptyDir.sizeLimit"));
        assert!(difference(&json!({"image": "1"}), &json!({"image": "1.0"})).is_some());
    }
}
