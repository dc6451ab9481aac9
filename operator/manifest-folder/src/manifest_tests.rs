use crate::fault::FaultKind::{self, *};
use crate::files::Reading;
use crate::manifest::{FileReading, Subject};

fn read(text: &str) -> std::sync::Arc<FileReading> {
    Reading::of_text("a.yaml", text).files.remove("a.yaml").unwrap()
}

fn instance(spec: &str) -> String {
    format!(
        "apiVersion: latchkey.dev/v1alpha1\nkind: RemoteInstance\nmetadata: {{name: lake}}\nspec:\n{spec}"
    )
}

fn block(spec: &str) -> String {
    format!("apiVersion: latchkey.dev/v1alpha1\nkind: VersionBlock\nmetadata: {{name: old}}\nspec:\n{spec}")
}

fn installation(spec: &str) -> String {
    format!(
        "apiVersion: latchkey.dev/v1alpha1\nkind: Installation\nmetadata: {{name: default}}\nspec:\n{spec}"
    )
}

fn told(text: &str) -> Vec<(FaultKind, String, String)> {
    let file = read(text);
    file.faults
        .iter()
        .map(|fault| (fault.kind, fault.to_string(), fault.help.clone().unwrap_or_default()))
        .collect()
}

#[track_caller]
fn check(text: &str, expected: &[(FaultKind, &str, &str)]) {
    let found = told(text);
    let found: Vec<_> =
        found.iter().map(|(kind, told, help)| (*kind, told.as_str(), help.as_str())).collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn sound_documents_have_no_faults() {
    for text in [
        instance("  enabled: true\n"),
        instance("  {}\n"),
        instance("  version: \"2023.10\"\n  customDomains: [Home.Example.com., x.example.com]\n"),
        instance("  access: {allowNetworks: [192.0.2.0/24, \"2001:db8::/32\", 192.0.2.7]}\n"),
        instance("  acceptedBlocks:\n  - {name: core-2021-1-4, reason: \"isolated VLAN\", by: ops@example.com}\n"),
        block("  versions: [\"<=2021.1.4\", \">=2023.1, <2023.3.2\"]\n  reason: Traversal\n  action: Warn\n"),
        installation("  domain: ui.example.com\n  quarantineDays: 7\n  unknownVersion: Block\n"),
        "{\n\t\"apiVersion\": \"latchkey.dev/v1alpha1\",\n\t\"kind\": \"RemoteInstance\",\n\t\"metadata\": {\"name\": \"x\", \"creationTimestamp\": null, \"uid\": \"7\"},\n\t\"spec\": {\"enabled\": true},\n\t\"status\": {\"url\": 5}\n}".to_owned(),
    ] {
        check(&text, &[]);
        assert_eq!(read(&text).objects.len(), 1, "{text}");
    }
}

#[test]
fn unknown_fields_are_told_with_what_was_meant() {
    check(
        &instance("  enable: true\n  access: {denyNetwork: [192.0.2.0/24]}\n  replicas: 2\n"),
        &[
            (UnknownField, "a.yaml:5:3: spec.enable: nobody knows this field", "did you mean `enabled`?"),
            (
                UnknownField,
                "a.yaml:6:12: spec.access.denyNetwork: nobody knows this field",
                "did you mean `denyNetworks`?",
            ),
            (
                UnknownField,
                "a.yaml:7:3: spec.replicas: nobody knows this field",
                "known are acceptedBlocks, access, acknowledgedCertificates, agentKeys, customDomains, enabled, \
                 hostname, installation, product, tunnels, version",
            ),
        ],
    );
    check(
        "apiVersion: latchkey.dev/v1alpha1\nkind: RemoteInstance\nmetadata:\n  name: x\n  anotations: {a: b}\nspecs: {}\nspec: {}\n",
        &[
            (
                UnknownField,
                "a.yaml:5:3: metadata.anotations: nobody knows this field",
                "did you mean `annotations`?",
            ),
            (UnknownField, "a.yaml:6:1: specs: nobody knows this field", "did you mean `spec`?"),
        ],
    );
    check(
        &installation("  domain: ui.example.com\n  quarantineDay: 7\n  publicport: 1\n"),
        &[
            (
                UnknownField,
                "a.yaml:6:3: spec.quarantineDay: nobody knows this field",
                "did you mean `quarantineDays`?",
            ),
            (
                UnknownField,
                "a.yaml:7:3: spec.publicport: nobody knows this field",
                "did you mean `publicPort`?",
            ),
        ],
    );
}

#[test]
fn types_that_yaml_guessed_are_told_with_the_remedy() {
    check(
        &instance(
            "  version: 2023.10\n  hostname: 123\n  enabled: \"true\"\n  customDomains: a.example.com\n  tunnels: 1.5\n",
        ),
        &[
            (WrongType, "a.yaml:5:12: spec.version must be text, not a number", "quote it: \"2023.10\""),
            (WrongType, "a.yaml:6:13: spec.hostname must be text, not a number", "quote it: \"123\""),
            (
                WrongType,
                "a.yaml:7:12: spec.enabled must be true or false, not text",
                "remove the quotes: true",
            ),
            (
                WrongType,
                "a.yaml:8:18: spec.customDomains must be a list, not text",
                "write a list: [a.example.com]",
            ),
            (WrongType, "a.yaml:9:12: spec.tunnels must be a whole number, not a number", ""),
        ],
    );
    check(
        "apiVersion: latchkey.dev/v1alpha1\nkind: RemoteInstance\nmetadata:\n  name: 7\n  annotations: {on: true}\nspec: {enabled:}\n",
        &[
            (WrongType, "a.yaml:4:9: metadata.name must be text, not a number", "quote it: \"7\""),
            (
                WrongType,
                "a.yaml:5:21: metadata.annotations.on: must be text, not true or false",
                "quote it: \"true\"",
            ),
            (
                WrongType,
                "a.yaml:6:8: spec.enabled must be true or false, not nothing",
                "give it a value, or leave the line out",
            ),
        ],
    );
}

#[test]
fn every_invalid_value_of_a_document_is_told() {
    let text = instance(
        "  hostname: Lake.House\n  customDomains: [ok.example.com, \"*.example.com\", a_b.example.com]\n  access:\n    allowNetworks: [192.0.2.5/24, nonsense, 192.0.2.0/24]\n    maxConnections: 0\n  agentKeys: [abc]\n  tunnels: 65\n",
    );
    let found = told(&text);
    let places: Vec<&str> =
        found.iter().map(|(_, told, _)| told.split(": ").take(2).last().unwrap()).collect();
    assert_eq!(
        places,
        [
            "spec.hostname",
            "spec.customDomains[1]",
            // The first of the two was taken out before the second was found.
            "spec.customDomains[1]",
            "spec.access.allowNetworks[0]",
            "spec.access.allowNetworks[0]",
            "spec.access.maxConnections is 0; it must be at least 1",
            "spec.agentKeys[0]",
            "spec.tunnels is 65; it must be at most 64",
        ],
        "{found:#?}"
    );
    assert!(found.iter().all(|(kind, ..)| *kind == InvalidValue));
    let lines: Vec<_> = found.iter().map(|(_, told, _)| told.split(": ").next().unwrap()).collect();
    assert_eq!(lines[1..3], ["a.yaml:6:35", "a.yaml:6:52"], "{found:#?}");
    assert!(found[3].1.contains("write 192.0.2.0/24 for the whole network"), "{found:#?}");
}

#[test]
fn lists_know_twice_and_too_many() {
    let many: Vec<String> = (0..17).map(|at| format!("h{at}.example.com")).collect();
    check(
        &instance(&format!("  customDomains: [{}]\n", many.join(", "))),
        &[(InvalidValue, "a.yaml:5:3: spec.customDomains has 17 entries; at most 16 are allowed", "")],
    );
    check(
        &instance("  customDomains: [a.example.com, b.example.com, a.example.com]\n"),
        &[(
            InvalidValue,
            "a.yaml:5:49: spec.customDomains[2]: \"a.example.com\" stands in this list twice",
            "remove one of them",
        )],
    );
}

#[test]
fn blocks_are_checked_down_to_each_range() {
    let found = told(&block(
        "  versions: [\"<=2021.1.4\", \"~2023.1\", \"newest\"]\n  reason: \"\"\n  action: block\n",
    ));
    let shown: Vec<&str> = found.iter().map(|(_, told, _)| told.as_str()).collect();
    assert_eq!(shown.len(), 4, "{shown:#?}");
    assert!(shown[0].starts_with("a.yaml:5:28: spec.versions[1]: "), "{shown:#?}");
    assert!(shown[1].starts_with("a.yaml:5:39: spec.versions[2]: "), "{shown:#?}");
    assert!(shown[2].starts_with("a.yaml:6:11: spec.reason"), "{shown:#?}");
    assert_eq!(found[3].1, "a.yaml:7:11: spec.action is \"block\"; it can be Block or Warn");
    assert_eq!(found[3].2, "did you mean `Block`?");
    check(
        &block("  versions: [1.5]\n  reason: x\n"),
        &[(WrongType, "a.yaml:5:14: spec.versions[0] must be text, not a number", "quote it: \"1.5\"")],
    );
    check(&block("  reason: x\n"), &[(MissingField, "a.yaml:4:1: spec.versions is missing", "")]);
}

#[test]
fn heads_are_checked() {
    for (text, kind, shown, help) in [
        (
            "apiVersion: latchkey.dev/v1\nkind: RemoteInstance\nmetadata: {name: x}\n",
            WrongVersion,
            "a.yaml:1:13: ",
            "v1alpha1",
        ),
        (
            "apiVersion: v1\nkind: VersionBlock\nmetadata: {name: x}\n",
            WrongVersion,
            "a.yaml:1:13: ",
            "v1alpha1",
        ),
        ("kind: RemoteInstance\nmetadata: {name: x}\n", MissingField, "a.yaml:1:7: apiVersion", "v1alpha1"),
        (
            "apiVersion: latchkey.dev/v1alpha1\nmetadata: {name: x}\n",
            MissingField,
            "a.yaml:1:13: kind",
            "VersionBlock",
        ),
        (
            "apiVersion: latchkey.dev/v1alpha1\nkind: RemoteInstanze\n",
            InvalidValue,
            "a.yaml:2:7: kind",
            "`RemoteInstance`",
        ),
        (
            "apiVersion: latchkey.dev/v1alpha1\nkind: RemoteInstance\nspec: {}\n",
            MissingField,
            "a.yaml:2:7: metadata.name",
            "name",
        ),
        (
            "apiVersion: latchkey.dev/v1alpha1\nkind: RemoteInstance\nmetadata: {generateName: x}\nspec: {}\n",
            MissingField,
            "a.yaml:3:1: metadata.name",
            "generateName",
        ),
        (
            "apiVersion: latchkey.dev/v1alpha1\nkind: RemoteInstance\nmetadata: {name: Lake_House}\nspec: {}\n",
            InvalidValue,
            "a.yaml:3:18: metadata.name",
            "lower-case",
        ),
        (
            "apiVersion: latchkey.dev/v1alpha1\nkind: RemoteInstance\nmetadata: {name: x, namespace: a.b}\nspec: {}\n",
            InvalidValue,
            "a.yaml:3:32: metadata.namespace",
            "letters",
        ),
        (
            "apiVersion: latchkey.dev/v1alpha1\nkind: VersionBlock\nmetadata: {name: x, namespace: y}\nspec: {versions: [\"<1\"], reason: r}\n",
            InvalidValue,
            "a.yaml:3:21: metadata.namespace",
            "remove",
        ),
        (
            "apiVersion: latchkey.dev/v1alpha1\nkind: RemoteInstance\nmetadata: {name: x}\n",
            MissingField,
            "a.yaml:3:18: spec is missing",
            "nothing",
        ),
        ("latchkey: [1]\n---\n- latchkey\n", WrongType, "a.yaml:3:1: a manifest is a mapping", ""),
    ] {
        let found = told(text);
        let [(found_kind, line, told)] = &found[..] else { panic!("{text}: {found:#?}") };
        assert_eq!(*found_kind, kind, "{text}");
        assert!(line.starts_with(shown), "{text}: {line}");
        assert!(told.contains(help), "{text}: {told}");
    }
}

#[test]
fn documents_of_others_are_passed_over() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: latchkey}\nspec: {x: 1}\n---\napiVersion: operators.example.com/v1\nkind: Installation\nmetadata: {name: x}\n---\nfoo: bar\n";
    let file = read(text);
    assert!(file.faults.is_empty() && file.objects.is_empty() && !file.incomplete);
    let kinds: Vec<_> = file.passed_over.iter().map(|other| other.kind.as_str()).collect();
    assert_eq!(kinds, ["Deployment", "Installation", "a document without kind"]);
}

#[test]
fn lists_are_opened() {
    let item = "{apiVersion: latchkey.dev/v1alpha1, kind: RemoteInstance, metadata: {name: NAME}, spec: {}}";
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {}\n- {}\n",
        item.replace("NAME", "one"),
        item.replace("NAME", "two")
    );
    let subjects: Vec<_> = read(&list).objects.iter().map(|object| object.subject.to_string()).collect();
    assert_eq!(subjects, ["RemoteInstance default/one", "RemoteInstance default/two"]);
    let mut deep = item.replace("NAME", "one");
    for _ in 0..8 {
        deep = format!("{{apiVersion: v1, kind: List, items: [{deep}]}}");
    }
    let file = read(&deep);
    assert_eq!((file.objects.len(), file.faults.len(), file.incomplete), (0, 1, true));
}

#[test]
fn a_faulty_document_still_names_its_object() {
    let file = read(&instance("  enabled: false\n  access: {maxConnections: many}\n"));
    let [object] = &file.objects[..] else { panic!() };
    assert_eq!(object.subject, Subject::Instance("default/lake".parse().unwrap()));
    let (path, problem) = object.problem.clone().unwrap();
    assert_eq!(path, "spec.access.maxConnections");
    assert!(problem.contains("a whole number"), "{problem}");
    assert!(!file.incomplete);
}

#[test]
fn what_is_wrong_with_an_object_says_the_member_once_and_the_remedy() {
    let file = read(&instance("  version: 2023.10\n"));
    let problem = file.objects[0].problem.clone().unwrap();
    let told = ("spec.version".to_owned(), "must be text, not a number; quote it: \"2023.10\"".to_owned());
    assert_eq!(problem, told);
}

#[test]
fn a_range_nobody_can_read_leaves_the_others_of_its_block_their_sense() {
    let file = read(&block("  versions: [\"<=2021.1.4\", \"^2022\"]\n  reason: x\n"));
    assert_eq!((file.objects[0].problem.clone(), file.faults.len()), (None, 1));
    let file = read(&block("  versions: [\"^2022\"]\n  reason: 7\n"));
    assert_eq!(file.objects[0].problem.as_ref().unwrap().0, "spec.reason");
}
