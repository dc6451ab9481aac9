use super::*;
use crate::files::Cache;

fn instance(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: latchkey.dev/v1alpha1\nkind: RemoteInstance\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

fn installation(domain: &str) -> String {
    format!(
        "---\napiVersion: latchkey.dev/v1alpha1\nkind: Installation\nmetadata: {{name: default}}\nspec: {{domain: {domain}}}\n"
    )
}

fn block(versions: &str) -> String {
    format!(
        "---\napiVersion: latchkey.dev/v1alpha1\nkind: VersionBlock\nmetadata: {{name: old}}\nspec: {{versions: {versions}, reason: hole}}\n"
    )
}

fn reading(files: &[(&str, String)]) -> Reading {
    let mut all = Reading::default();
    for (name, text) in files {
        all.files.extend(Reading::of_text(name, text).files);
    }
    all
}

fn shown(settled: &Settled) -> Vec<String> {
    settled
        .objects
        .iter()
        .map(|(subject, object)| {
            let sense = if object.problem.is_some() { "unreadable" } else { "good" };
            format!("{subject} {sense} {}", object.file)
        })
        .collect()
}

/// One row of the module's table after the other.
#[test]
fn a_document_that_cannot_be_read_leaves_its_file_as_it_was() {
    let first = settle(
        &reading(&[
            ("a.yaml", instance("one", "") + &instance("two", "enabled: true")),
            ("b.yaml", instance("three", "")),
        ]),
        &LastGood::new(),
    );
    assert!(first.faults.is_empty());
    // a.yaml is broken behind its first document, b.yaml is gone.
    let broken = instance("one", "enabled: false") + "---\nx: [\n";
    let second = settle(&reading(&[("a.yaml", broken)]), &first.good);
    assert_eq!(
        shown(&second),
        ["RemoteInstance default/one good a.yaml", "RemoteInstance default/two good a.yaml"]
    );
    let one = &second.objects[&Subject::Instance("default/one".parse().unwrap())];
    assert_eq!(one.document.pointer("/spec/enabled"), Some(&Value::Bool(false)));
    assert_eq!(second.faults.len(), 1);
    // And still there after the next reading; gone once the file says so.
    let third = settle(&reading(&[("a.yaml", "# latchkey\nx: [".to_owned())]), &second.good);
    assert_eq!(third.objects.len(), 2);
    let last = settle(&reading(&[("a.yaml", instance("one", ""))]), &third.good);
    assert_eq!(shown(&last), ["RemoteInstance default/one good a.yaml"]);
}

#[test]
fn a_folder_that_cannot_be_read_changes_nothing() {
    let first = settle(&reading(&[("a.yaml", instance("one", ""))]), &LastGood::new());
    let gone = Reading::of_path(std::path::Path::new("/nonexistent/latchkey"), &mut Cache::default());
    let second = settle(&gone, &first.good);
    assert_eq!(shown(&second), ["RemoteInstance default/one good a.yaml"]);
    assert_eq!(second.faults.len(), 1);
}

#[test]
fn an_invalid_document_is_unreadable_and_the_good_form_is_remembered() {
    let first = settle(&reading(&[("a.yaml", instance("one", "tunnels: 2"))]), &LastGood::new());
    let second = settle(&reading(&[("a.yaml", instance("one", "tunnels: 0, enabled: false"))]), &first.good);
    assert_eq!(shown(&second), ["RemoteInstance default/one unreadable a.yaml"]);
    assert_eq!(second.good, first.good);
    let Some(resources::Observed::<resources::RemoteInstance>::Unreadable(wrong)) =
        second.objects.values().next().and_then(|object| {
            crate::manifest::observed(Value::clone(&object.document), object.problem.as_ref())
        })
    else {
        panic!()
    };
    assert_eq!((wrong.enabled, wrong.path.as_str()), (Some(false), "spec.tunnels"));
}

#[test]
fn two_documents_of_one_object_are_told_with_both_places() {
    let settled = settle(
        &reading(&[
            ("a.yaml", instance("one", "enabled: true")),
            ("b.yaml", instance("one", "enabled: false")),
        ]),
        &LastGood::new(),
    );
    let [fault] = &settled.faults[..] else { panic!() };
    assert_eq!(
        fault.to_string(),
        "b.yaml:4:18: there are two documents of RemoteInstance default/one (the other: a.yaml:4:18)"
    );
    let one = settled.objects.values().next().unwrap();
    assert!(one.problem.is_some());
    assert_eq!(one.document.pointer("/spec/enabled"), Some(&Value::Bool(false)));
    // Another namespace is another object.
    let other = instance("one", "").replace("{name: one}", "{name: one, namespace: homes}");
    let settled = settle(&reading(&[("a.yaml", instance("one", "") + &other)]), &LastGood::new());
    assert!(settled.faults.is_empty());
}

#[test]
fn what_cannot_be_changed_is_told_where_it_stands() {
    for (before, after, told) in [
        (
            instance("x", "hostname: a"),
            instance("x", "hostname: b"),
            "a.yaml:5:18: spec.hostname cannot be changed from \"a\" to \"b\"",
        ),
        (
            instance("x", "installation: a"),
            instance("x", "enabled: true"),
            "a.yaml:4:18: spec.installation cannot be changed from \"a\" to \"\"",
        ),
        (block("[\"<1\"]"), block("[\"<2\"]"), "a.yaml:5:18: spec.versions cannot be changed"),
        (instance("x", "hostname: a"), instance("x", "enabled: true"), ""),
        (instance("x", "enabled: true"), instance("x", "hostname: a"), ""),
        (block("[\"<1\"]"), block("[\"<1\"], product: home-assistant-core"), ""),
    ] {
        let first = settle(&reading(&[("a.yaml", before)]), &LastGood::new());
        let second = settle(&reading(&[("a.yaml", after)]), &first.good);
        let found: Vec<_> = second.faults.iter().map(ToString::to_string).collect();
        let expected: Vec<_> = [told].into_iter().filter(|told| !told.is_empty()).collect();
        assert_eq!(found, expected);
        assert_eq!(second.objects.values().next().unwrap().problem.is_some(), !told.is_empty());
    }
}

#[test]
fn the_installation_is_the_last_good_one() {
    let domain = |settled: &Settled| match &settled.installation {
        InstallationChoice::Stated(stated) => stated.spec.domain.to_string(),
        other => format!("{other:?}"),
    };
    let empty = LastGood::new();
    assert_eq!(domain(&settle(&reading(&[("a.yaml", instance("x", ""))]), &empty)), "Unstated");
    let bad = installation("\"*\"");
    assert_eq!(domain(&settle(&reading(&[("a.yaml", bad.clone())]), &empty)), "Unknown");
    assert_eq!(domain(&settle(&reading(&[("a.yaml", "# latchkey\nx: [".to_owned())]), &empty)), "Unknown");
    let first = settle(&reading(&[("a.yaml", installation("a.example"))]), &empty);
    assert_eq!(domain(&first), "a.example");
    for broken in [bad, "# latchkey\nx: [".to_owned(), installation("b.example") + &installation("c.example")]
    {
        let second = settle(&reading(&[("a.yaml", broken)]), &first.good);
        assert_eq!(domain(&second), "a.example");
        assert!(!second.faults.is_empty());
        let third = settle(&reading(&[("a.yaml", installation("d.example"))]), &second.good);
        assert_eq!(domain(&third), "d.example");
    }
}
