use route_table::RouteTable;

use super::*;

/// What a route has as its list of blocks.
type Blocks = Route;

fn list(name: &str) -> Blocks {
    let table = format!(
        "revision: 1\nroutes:\n- id: a/b\n  hostnames: []\n  blocks: [{{name: {name}, versions: [\"<=2021.1.4\"], reason: old}}]\n"
    );
    RouteTable::parse(&table).unwrap().by_id("a/b").unwrap().clone()
}

fn none() -> Blocks {
    Route::new("a/b".parse().unwrap())
}

/// So many routes, each with the list and the generation it is given.
fn routes<'a>(count: usize, look: impl Fn(usize) -> (&'a Blocks, u64)) -> Routes {
    let route = |at| {
        let (like, generation) = look(at);
        let route = Route::new(format!("homes/house-{at:05}").parse().unwrap());
        let route = route.with(|terms| terms.generation = generation).with_blocks(&like.blocks);
        (route.id.clone(), route)
    };
    (0..count).map(route).collect()
}

fn counts(changes: &Changes<'_>) -> (usize, Vec<usize>, usize) {
    let relisted = changes.relisted.iter().map(|relisting| relisting.routes).collect();
    (changes.all.len(), relisted, changes.rest.len())
}

#[test]
fn another_list_for_all_who_had_one_is_told_once() {
    let (none, first, second) = (none(), list("first"), list("second"));
    let before = routes(3_000, |at| (if at < 1_000 { &none } else { &first }, 1));
    let after = routes(3_000, |at| (if at < 1_000 { &first } else { &second }, 1));
    let told = changes(&before, &after);
    let (all, mut relisted, rest) = counts(&told);
    relisted.sort_unstable();
    assert_eq!((all, relisted, rest), (3_000, vec![1_000, 2_000], 0));
}

#[test]
fn whoever_changed_in_another_way_is_told_as_well() {
    let (first, second) = (list("first"), list("second"));
    let before = routes(2_000, |_| (&first, 1));
    let mut after = routes(2_010, |at| (&second, if at == 7 { 2 } else { 1 }));
    after.remove(&"homes/house-00009".parse().unwrap());
    let told = changes(&before, &after);
    assert_eq!(counts(&told), (2_010, vec![2_000], 12), "one other, one gone, ten new");
    assert!(told.rest.iter().any(|(id, now)| id.as_str() == "homes/house-00009" && now.is_none()));
}

#[test]
fn where_somebody_keeps_the_list_all_are_told_one_by_one() {
    let (first, second) = (list("first"), list("second"));
    let before = routes(2_000, |_| (&first, 1));
    let after = routes(2_000, |at| (if at == 0 { &first } else { &second }, 1));
    assert_eq!(counts(&changes(&before, &after)), (1_999, vec![], 1_999));
}

#[test]
fn few_are_told_one_by_one() {
    let (first, second) = (list("first"), list("second"));
    let told = changes(&routes(1_000, |_| (&first, 1)), &routes(1_000, |_| (&second, 1))).all.len();
    assert_eq!(told, 1_000);
    assert!(changes(&routes(1_000, |_| (&first, 1)), &routes(1_000, |_| (&second, 1))).relisted.is_empty());
}
