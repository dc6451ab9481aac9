use super::*;

fn routes(count: u32, look: u64) -> Routes {
    let route = |at: u32| {
        let route = Route::new(format!("homes/house-{at}").parse().unwrap());
        let route = route.with(|terms| terms.generation = look);
        (route.id.clone(), route)
    };
    (0..count).map(route).collect()
}

fn table(term: u64, revision: u64, routes: &Routes) -> Published {
    let position = Position { term, revision };
    let domain = "ui.example.com".parse().unwrap();
    Published { position, domain, routes: routes.clone(), at: Instant::now(), step: None }
}

fn limits() -> Limits {
    Limits { kept_tables: 4, kept_changes: 10, ..Limits::default() }
}

#[test]
fn only_the_last_tables_are_kept() {
    let (mut history, all) = (History::default(), routes(100, 1));
    for revision in 1..=6 {
        assert!(history.push(table(3, revision, &all), &limits()));
    }
    let kept = |revision| history.start(Position { term: 3, revision }).is_some();
    assert_eq!([1, 2, 3, 4, 5, 6].map(kept), [false, false, true, true, true, true]);
    assert_eq!(history.newest().unwrap().position.revision, 6);
}

#[test]
fn a_change_of_everything_keeps_no_second_table_in_memory() {
    let mut history = History::default();
    assert!(history.push(table(1, 1, &routes(100, 1)), &limits()));
    assert!(history.push(table(1, 2, &routes(100, 2)), &limits()));
    assert!(history.start(Position { term: 1, revision: 1 }).is_none());
    // Small changes after it are kept, until together they are too many.
    let mut next = routes(100, 2);
    for revision in 3..=5 {
        for (id, route) in &routes(4, revision) {
            next.insert(id.clone(), route.clone());
        }
        assert!(history.push(table(1, revision, &next), &limits()));
    }
    assert!(history.start(Position { term: 1, revision: 2 }).is_none());
    assert!(history.start(Position { term: 1, revision: 3 }).is_some());
}

#[test]
fn nothing_leads_back() {
    let (mut history, all) = (History::default(), routes(1, 1));
    assert!(history.push(table(2, 7, &all), &limits()));
    assert!(!history.push(table(2, 7, &all), &limits()), "the same again");
    assert!(!history.push(table(2, 6, &all), &limits()));
    assert!(!history.push(table(1, 9, &all), &limits()));
    let renamed = Published { domain: "other.example.com".parse().unwrap(), ..table(2, 7, &all) };
    assert!(history.push(renamed, &limits()), "another domain is news even in the same revision");
}

#[test]
fn who_lacks_what_since_when() {
    let (mut history, all) = (History::default(), routes(1, 1));
    assert_eq!(history.behind_since(None), None);
    assert!(history.push(table(1, 1, &all), &limits()));
    assert!(history.push(table(1, 2, &all), &limits()));
    let at = |revision| Some(history.start(Position { term: 1, revision }).unwrap().at);
    assert_eq!(history.behind_since(None), at(1));
    assert_eq!(history.behind_since(Some(Position { term: 1, revision: 1 })), at(2));
    assert_eq!(history.behind_since(Some(Position { term: 1, revision: 2 })), None);
}

#[test]
fn changes_are_told_as_long_as_they_are_less_than_half() {
    let (mut history, all) = (History::default(), routes(4_000, 1));
    let limits = Limits::default();
    assert!(history.push(table(1, 1, &all), &limits));
    let mut next = all;
    for (revision, known) in [(2, true), (3, true), (4, false)] {
        for (id, route) in &routes(1_000, revision) {
            next.insert(id.clone(), route.clone());
        }
        assert!(history.push(table(1, revision, &next), &limits));
        assert_eq!(history.start(Position { term: 1, revision: 1 }).is_some(), known, "{revision}");
    }
    assert!(history.start(Position { term: 1, revision: 3 }).is_some());
}
