//! Schemas of values whose rules live in other crates: what the API server checks before anybody else does.
//!
//! Patterns are for every tool that reads a schema; the rules beside them are for people: they say what to write.
//! Whatever a rule looks at has a largest size, or the API server would count the rule as too expensive.

use policy::{MAX_COMPARISONS, MAX_PRODUCT_LENGTH, MAX_RANGE_LENGTH, MAX_VERSION_LENGTH};
use route_table::{
    MAX_AGENT_KEYS_PER_ROUTE, MAX_BLOCK_NAME_LENGTH, MAX_BLOCK_TEXT_LENGTH, MAX_HOST_NAME_LENGTH,
    MAX_NETWORKS_PER_LIST, MAX_RANGES_PER_BLOCK, SESSION_LABEL,
};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::check::{MAX_CUSTOM_DOMAINS, MAX_LABEL_LENGTH};

/// A label of a DNS name.
const LABEL: &str = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?";
/// The same in any case, as people write domains.
const ANY_LABEL: &str = "[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?";

/// A rule in CEL: what must hold, and what is told when it does not.
fn rule(rule: &str, message: &str) -> Value {
    json!({"rule": rule, "message": message})
}

/// The rule that says in words what a pattern wants.
fn spelled(pattern: &str, message: &str) -> Value {
    rule(&format!("self.matches(r'{pattern}')"), message)
}

/// The rule of a member that stays as it is.
fn unchanging(message: &str) -> Value {
    rule("self == oldSelf", message)
}

/// With a default it is always there, so that leaving it out is a change like any other.
pub(crate) fn installation(_: &mut SchemaGenerator) -> Schema {
    let pattern = format!("^({LABEL})?$");
    json_schema!({
        "type": "string", "default": "", "maxLength": MAX_LABEL_LENGTH, "pattern": pattern,
        "x-kubernetes-validations": [
            spelled(&pattern, "must be the name of an installation: lower-case letters, digits and hyphens inside"),
            unchanging("cannot be changed: delete the RemoteInstance and make it again for another installation"),
        ],
    })
}

/// A rule of an optional member is passed over when the member comes or goes: a label may be given up, and another
/// taken later, but never swapped by a slip.
pub(crate) fn label(_: &mut SchemaGenerator) -> Schema {
    let pattern = format!("^{LABEL}$");
    json_schema!({
        "type": "string", "minLength": 1, "maxLength": MAX_LABEL_LENGTH, "pattern": pattern,
        "x-kubernetes-validations": [
            spelled(
                &pattern,
                "must be one label: lower-case letters, digits and hyphens inside, no dots; the installation's \
                 domain follows by itself",
            ),
            rule(&format!("self != '{SESSION_LABEL}'"), "is reserved: agents get their sessions at this name"),
            unchanging("cannot be changed: remove it (which gives the name up), then set another"),
        ],
    })
}

pub(crate) fn host_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": MAX_CUSTOM_DOMAINS, "x-kubernetes-list-type": "set",
        "items": {
            "type": "string", "minLength": 1, "maxLength": MAX_HOST_NAME_LENGTH + 1,
            "pattern": format!(r"^({ANY_LABEL}\.)+[A-Za-z]([-A-Za-z0-9]{{0,61}}[A-Za-z0-9])?\.?$"),
            "x-kubernetes-validations": [
                rule("!self.contains('*')", "wildcards are not served: list every name"),
                rule("self.matches('^[!-~]*$')", "write names in other scripts as punycode (xn--...)"),
                rule(
                    "!self.contains('/') && !self.contains(':')",
                    "must be a name alone, without scheme, port or path",
                ),
                rule("!isIP(self)", "must be a name: visitors are routed by name, never by IP address"),
                rule("self.contains('.')", "must be a whole domain name, such as home.example.com"),
            ],
        },
    })
}

pub(crate) fn networks(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": MAX_NETWORKS_PER_LIST, "x-kubernetes-list-type": "set",
        "items": {
            "type": "string", "minLength": 2, "maxLength": 64,
            "x-kubernetes-validations": [
                rule(
                    "isCIDR(self) || isIP(self)",
                    "must be a network, such as 192.0.2.0/24 or 2001:db8::/32, or a single address",
                ),
                rule(
                    "!isCIDR(self) || cidr(self).masked() == cidr(self)",
                    "must be a network, and has bits behind its prefix: write 192.0.2.0/24 for all of it, 192.0.2.7 \
                     for the one address",
                ),
            ],
        },
    })
}

pub(crate) fn fingerprints(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": MAX_AGENT_KEYS_PER_ROUTE, "x-kubernetes-list-type": "set",
        "items": {
            "type": "string", "maxLength": 95, "pattern": "^[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}$",
            "x-kubernetes-validations": [rule(
                "self.replace(':', '').matches('^[0-9A-Fa-f]{64}$')",
                "must be SHA-256 as 64 hex digits; colons between them are fine",
            )],
        },
    })
}

/// What a product is called.
const PRODUCT: &str = "^[a-z0-9][a-z0-9._-]*$";
/// The same in words.
const PRODUCT_IN_WORDS: &str = "must be made of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit, such as home-assistant-core";

pub(crate) fn product(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "minLength": 1, "maxLength": MAX_PRODUCT_LENGTH, "pattern": PRODUCT,
        "x-kubernetes-validations": [spelled(PRODUCT, PRODUCT_IN_WORDS)],
    })
}

pub(crate) fn block_product(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "minLength": 1, "maxLength": MAX_PRODUCT_LENGTH, "pattern": PRODUCT,
        "x-kubernetes-validations": [
            spelled(PRODUCT, PRODUCT_IN_WORDS),
            unchanging("cannot be changed: a new finding is a new VersionBlock"),
        ],
    })
}

/// What a number is told where a version belongs. A text passes the second branch, since only numbers have a
/// maximum; a number passes neither, and the API server then shows the first one's only value.
fn told_to_numbers() -> Value {
    json!([{"enum": ["quote it: without quotes 2023.10 is the number 2023.1"]}, {"maximum": -1}])
}

pub(crate) fn version(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "minLength": 1, "maxLength": MAX_VERSION_LENGTH, "anyOf": told_to_numbers(),
    })
}

pub(crate) fn ranges(_: &mut SchemaGenerator) -> Schema {
    let comparison = "(<=|>=|==|<|>|=)? *v?[0-9][0-9A-Za-z.+_-]* *";
    let pattern = format!("^ *{comparison}(, *{comparison}){{0,{}}}$", MAX_COMPARISONS - 1);
    json_schema!({
        "type": "array", "minItems": 1, "maxItems": MAX_RANGES_PER_BLOCK, "x-kubernetes-list-type": "set",
        "x-kubernetes-validations": [unchanging("cannot be changed: a new finding is a new VersionBlock")],
        "items": {
            "type": "string", "minLength": 1, "maxLength": MAX_RANGE_LENGTH, "anyOf": told_to_numbers(),
            "pattern": pattern,
            "x-kubernetes-validations": [spelled(
                &pattern,
                &format!(
                    "must be versions behind <, <=, =, >= or >, at most {MAX_COMPARISONS}, with commas that mean \
                     \"and\", such as \">=2023.1, <2023.3.2\"; for \"or\" write several ranges"
                ),
            )],
        },
    })
}

pub(crate) fn link(_: &mut SchemaGenerator) -> Schema {
    let pattern = "^https?://[^ ]+$";
    json_schema!({
        "type": "string", "minLength": 1, "maxLength": MAX_BLOCK_TEXT_LENGTH, "pattern": pattern,
        "x-kubernetes-validations": [spelled(pattern, "must be a link that begins with https:// or http://")],
    })
}

/// The name of a `VersionBlock`, as the API server wants names.
pub(crate) fn block_name(_: &mut SchemaGenerator) -> Schema {
    let pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
    json_schema!({
        "type": "string", "minLength": 1, "maxLength": MAX_BLOCK_NAME_LENGTH, "pattern": pattern,
        "x-kubernetes-validations": [spelled(pattern, "must be the name of a VersionBlock")],
    })
}

pub(crate) fn action(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["Block", "Warn"]})
}
