//! Whatever changes, a proxy that read every update has the operator's table.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a failed expectation is the message"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use operator_link::{
    CONTRACT, Changes, Position, Read, ReadError, Relisting, UpdateReader, UpdateWriter, wire,
};
use policy::{BlockAction, ReportedVersion, UnknownVersion, VersionBlock, VersionRange, VersionScheme};
use proptest::prelude::*;
use prost::Message as _;
use route_table::{AgentKey, Fingerprint, HostName, InstanceId, Route, RouteTable};

type Routes = BTreeMap<InstanceId, Route>;

fn domain() -> HostName {
    "ui.example.com".parse().unwrap()
}

fn block(name: &str, action: BlockAction) -> VersionBlock {
    VersionBlock {
        name: name.into(),
        ranges: vec![VersionRange::parse("<=2021.1.4", VersionScheme::Calendar).unwrap()],
        reason: "Directory traversal".to_owned(),
        more_info: Some("https://www.example.com/advisory".to_owned()),
        action,
    }
}

fn route(at: u8, look: u8, lists: &[Arc<[VersionBlock]>]) -> Route {
    let route = Route::new(format!("homes/house-{at}").parse().unwrap()).with(|terms| {
        terms.hostnames = vec![format!("house-{at}.ui.example.com").parse().unwrap()];
        terms.generation = u64::from(look) + 1;
        terms.enabled = !look.is_multiple_of(5);
        terms.declared_version = ReportedVersion::read("2026.11.1", VersionScheme::Calendar);
        terms.unknown_version =
            if look.is_multiple_of(2) { UnknownVersion::Allow } else { UnknownVersion::Block };
        terms.accepted_blocks = vec![format!("block-{look}")];
        terms.allow_networks = vec!["192.0.2.0/24".parse().unwrap()];
        terms.deny_networks = vec!["2001:db8::/32".parse().unwrap()];
        terms.limits.max_connections = u32::from(look) + 1;
        terms.tunnels = u32::from(look % 3) + 1;
        terms.agent_keys = vec![AgentKey { fingerprint: Fingerprint::from_bytes([at; 32]), generation: 1 }];
        terms.park_visitors = look.is_multiple_of(3);
        terms.priority = i32::from(look) - 100;
    });
    route.with_blocks(lists.get(usize::from(look) % lists.len()).unwrap())
}

fn routes(state: &BTreeMap<u8, u8>, lists: &[Arc<[VersionBlock]>]) -> Routes {
    let made = state.iter().map(|(at, look)| route(*at, *look, lists));
    made.map(|route| (route.id.clone(), route)).collect()
}

fn lists() -> Vec<Arc<[VersionBlock]>> {
    vec![
        Arc::default(),
        [block("one", BlockAction::Block)].into(),
        [block("one", BlockAction::Warn), block("two", BlockAction::Block)].into(),
    ]
}

/// Over the wire and back: what is not in the message is lost.
fn carried(part: &wire::Update) -> wire::Update {
    wire::Update::decode(part.encode_to_vec().as_slice()).unwrap()
}

fn read_all(
    reader: &mut UpdateReader,
    parts: impl IntoIterator<Item = wire::Update>,
    present: Option<(Position, &RouteTable)>,
) -> (Position, RouteTable) {
    for part in parts {
        if let Read::Table(position, table) = reader.take(carried(&part), present).unwrap() {
            return (position, table);
        }
    }
    panic!("the last part never came");
}

fn same(table: &RouteTable, routes: &Routes) -> bool {
    table.routes().len() == routes.len()
        && routes.iter().all(|(id, route)| table.by_id(id.as_str()).is_some_and(|found| found == route))
}

proptest! {
    #[test]
    fn a_proxy_follows_every_change(
        states in proptest::collection::vec(
            (proptest::collection::btree_map(0_u8..40, 0_u8..20, 0..40), any::<bool>()), 1..8)
    ) {
        let lists = lists();
        let (mut writer, mut reader) = (UpdateWriter::default(), UpdateReader::default());
        let mut known: Option<(Position, RouteTable)> = None;
        let mut before = Routes::new();
        for (revision, (state, anew)) in states.iter().enumerate() {
            let to = Position { term: 3, revision: revision as u64 + 1 };
            let now = routes(state, &lists);
            let present = known.as_ref().map(|(position, table)| (*position, table));
            let next = match present {
                Some((from, _)) if !*anew => {
                    let changed = now.iter().filter(|(id, route)| before.get(*id) != Some(*route));
                    let changed: Vec<_> = changed.map(|(_, route)| route.clone()).collect();
                    let removed: Vec<_> = before.keys().filter(|id| !now.contains_key(*id)).cloned().collect();
                    let changes =
                        Changes { relisted: vec![], changed: changed.into_iter(), removed: removed.into_iter() };
                    let parts = writer.change(to, from, &domain(), changes);
                    read_all(&mut reader, parts, present)
                }
                _ => read_all(&mut reader, writer.everything(to, &domain(), now.values().cloned()), present),
            };
            prop_assert_eq!(next.0, to);
            prop_assert_eq!(next.1.revision, to.revision);
            prop_assert!(same(&next.1, &now));
            known = Some(next);
            before = now;
        }
    }
}

#[test]
fn a_large_table_comes_in_parts_and_is_in_force_only_with_the_last() {
    let lists = lists();
    let many: Vec<_> = (0..5_000_u32)
        .map(|at| {
            route(1, 1, &lists).with(|terms| {
                terms.id = format!("homes/house-{at:05}").parse().unwrap();
                terms.hostnames = vec![format!("house-{at:05}.ui.example.com").parse().unwrap()];
                terms.agent_keys.clear();
            })
        })
        .collect();
    let (mut writer, mut reader) = (UpdateWriter::default(), UpdateReader::default());
    let to = Position { term: 1, revision: 1 };
    let parts: Vec<_> = writer.everything(to, &domain(), many.into_iter()).collect();
    assert!(parts.len() > 2, "{}", parts.len());
    assert_eq!(
        parts.iter().map(|part| part.block_lists.len()).sum::<usize>(),
        1,
        "a shared list is sent once"
    );
    let (last, first) = parts.split_last().unwrap();
    for part in first {
        assert!(matches!(reader.take(part.clone(), None).unwrap(), Read::Partly));
    }
    let Read::Table(position, table) = reader.take(last.clone(), None).unwrap() else {
        panic!("not the last")
    };
    assert_eq!((position, table.routes().len()), (to, 5_000));
    let shared = &table.by_id("homes/house-00000").unwrap().blocks;
    assert!(Arc::ptr_eq(shared, &table.by_id("homes/house-04999").unwrap().blocks));
}

fn one_part(routes: Vec<Route>) -> wire::Update {
    let to = Position { term: 2, revision: 5 };
    UpdateWriter::default().everything(to, &domain(), routes.into_iter()).next().unwrap()
}

#[test]
fn a_restriction_that_is_not_known_refuses_the_route_and_nothing_else() {
    let lists = lists();
    let mut part =
        one_part(vec![route(1, 1, &lists), route(2, 2, &lists), route(3, 2, &lists), route(4, 3, &lists)]);
    part.routes[0].must_understand.push("maxBandwidth".to_owned());
    part.routes[1].unknown_version = 77;
    // The list of the third is the second's, too.
    part.block_lists.iter_mut().find(|list| list.blocks.len() == 2).unwrap().blocks[0].action = 9;
    let table = read_all(&mut UpdateReader::default(), [part], None).1;
    let refused = |at: u8| table.by_id(&format!("homes/house-{at}")).unwrap().not_understood.clone();
    assert_eq!(refused(1), ["maxBandwidth"]);
    assert_eq!(refused(2), ["unknownVersion", "blocks[one].action"]);
    assert_eq!(refused(3), ["blocks[one].action"]);
    assert_eq!(refused(4), [""; 0]);
}

#[test]
fn a_deposed_leader_cannot_push_and_gaps_are_seen() {
    let lists = lists();
    let mut reader = UpdateReader::default();
    let (position, table) = read_all(&mut reader, [one_part(vec![route(1, 1, &lists)])], None);
    let present = Some((position, &table));
    let mut old = one_part(vec![]);
    old.to = Some(wire::Position { term: 1, revision: 900 });
    assert!(matches!(reader.take(old, present), Err(ReadError::Backwards { .. })));
    let mut gap = one_part(vec![]);
    (gap.from, gap.to) =
        (Some(wire::Position { term: 2, revision: 4 }), Some(wire::Position { term: 2, revision: 6 }));
    assert!(matches!(reader.take(gap.clone(), present), Err(ReadError::OtherStart { .. })));
    assert!(matches!(reader.take(gap, None), Err(ReadError::OtherStart { .. })));
    let mut open = one_part(vec![]);
    open.last = false;
    assert!(matches!(reader.take(open, present), Ok(Read::Partly)));
    let mut other = one_part(vec![]);
    other.to = Some(wire::Position { term: 2, revision: 7 });
    assert!(matches!(reader.take(other, present), Err(ReadError::Mixed { .. })));
}

type Spoil = fn(&mut wire::Update);

#[test]
fn nonsense_is_named() {
    let lists = lists();
    let cases: [(Spoil, &str); 7] = [
        (|part| part.to = None, "without `to`"),
        (|part| part.domain = "not a name".to_owned(), "domain"),
        (|part| part.routes[0].id = "homes".to_owned(), "route homes: id"),
        (|part| part.routes[0].block_list = 40, "homes/house-1: blockList: 40"),
        (|part| part.routes[0].tunnels = 0, "homes/house-1: tunnels: is 0"),
        (|part| part.routes[0].agent_keys[0].fingerprint_sha256.clear(), "agentKeys[0]"),
        (
            |part| part.block_lists[0].blocks[0].versions[0] = "<=x y".to_owned(),
            "(block list 1): blocks[one].versions",
        ),
    ];
    for (spoil, expected) in cases {
        let mut part = one_part(vec![route(1, 1, &lists)]);
        spoil(&mut part);
        let error = UpdateReader::default().take(part, None).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let keys = wire::TokenKeys { keys: vec![vec![171; 32]] };
    let enrol = wire::Enrol { number: 7, join_token: "lkjoin_secret".to_owned(), public_key_sha256: vec![] };
    let shown = format!("{keys:?} {enrol:?}");
    assert!(!shown.contains("171") && !shown.contains("lkjoin") && shown.contains('7'), "{shown}");
}

/// Every route of one list gets the other one; the rest is told route by route.
fn relisted(from: &Arc<[VersionBlock]>, to: &Arc<[VersionBlock]>, routes: usize) -> Relisting {
    Relisting { product: route_product(), from: Arc::clone(from), to: Arc::clone(to), routes }
}

fn route_product() -> policy::Product {
    route(0, 0, &lists()).product.clone()
}

#[test]
fn lists_take_the_place_of_others_in_a_few_bytes() {
    let (lists, new) = (lists(), Arc::from([block("three", BlockAction::Block)]));
    let state: BTreeMap<u8, u8> = (0..30).map(|at| (at, at % 6)).collect();
    let before = routes(&state, &lists);
    let (mut writer, mut reader) = (UpdateWriter::default(), UpdateReader::default());
    let position = |revision| Position { term: 1, revision };
    let (first, table) =
        read_all(&mut reader, writer.everything(position(1), &domain(), before.values().cloned()), None);
    // Those without blocks get one, those of `one` have none any more, and one house is another besides.
    let lists_changed = vec![relisted(&lists[0], &new, 10), relisted(&lists[1], &lists[0], 10)];
    assert!(writer.can_relist(CONTRACT, &lists_changed));
    assert!(!writer.can_relist(1, &lists_changed), "an older proxy would pass over it");
    assert!(!writer.can_relist(CONTRACT, &[relisted(&new, &lists[1], 1)]), "nobody was told of it");
    assert!(!UpdateWriter::default().can_relist(CONTRACT, &[relisted(&lists[0], &new, 10)]));
    let mut after = before.clone();
    for route in after.values_mut() {
        let blocks = match route.blocks.len() {
            0 => Arc::clone(&new),
            1 => Arc::clone(&lists[0]),
            _ => continue,
        };
        *route = route.with_blocks(&blocks);
    }
    let other = after.values_mut().next().unwrap();
    *other = other.clone().with(|terms| terms.generation = 99);
    let (changed, removed) = (vec![other.clone()].into_iter(), vec![].into_iter());
    let parts: Vec<_> = writer
        .change(position(2), first, &domain(), Changes { relisted: lists_changed, changed, removed })
        .collect();
    let bytes: usize = parts.iter().map(prost::Message::encoded_len).sum();
    assert!(bytes < 600, "{bytes} bytes");
    let (second, next) = read_all(&mut reader, parts.clone(), Some((first, &table)));
    assert_eq!(second, position(2));
    assert!(same(&next, &after));

    // What does not fit is refused as a whole.
    let refused = |spoil: &dyn Fn(&mut wire::Update)| {
        let (mut writer, mut reader) = (UpdateWriter::default(), UpdateReader::default());
        let parts = writer.everything(position(1), &domain(), before.values().cloned());
        let (first, table) = read_all(&mut reader, parts, None);
        let mut part = parts_of_second(&lists, &new, &mut writer, first);
        spoil(&mut part);
        reader.take(carried(&part), Some((first, &table))).unwrap_err()
    };
    assert_eq!(refused(&|part| part.relisted[0].routes = 9), ReadError::Miscounted);
    assert_eq!(refused(&|part| part.relisted[0].to = 77), ReadError::Relisted { from: 0, to: 77 });
    let nothing = wire::Relisted { from: 0, to: 0, routes: 10 };
    assert_eq!(refused(&|part| part.relisted = vec![nothing]), ReadError::Relisted { from: 0, to: 0 });
    assert!(matches!(refused(&|part| part.block_lists[0].blocks[0].action = 9), ReadError::Relisted { .. }));
    let no_start = |part: &mut wire::Update| (part.from, part.block_lists) = (None, part.block_lists.clone());
    assert_eq!(refused(&no_start), ReadError::Miscounted);
}

fn parts_of_second(
    lists: &[Arc<[VersionBlock]>],
    new: &Arc<[VersionBlock]>,
    writer: &mut UpdateWriter,
    from: Position,
) -> wire::Update {
    let changes = Changes {
        relisted: vec![relisted(&lists[0], new, 10)],
        changed: std::iter::empty(),
        removed: std::iter::empty(),
    };
    writer.change(Position { term: 1, revision: 2 }, from, &domain(), changes).next().unwrap()
}
