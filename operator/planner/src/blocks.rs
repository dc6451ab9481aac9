//! Version blocks: which ranges are in force, and whom they name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;
use imbl::OrdMap;
use policy::{Admission, BlockAction, Product, ReportedVersion, UnknownVersion, VersionBlock};
use resources::{Observed, VersionBlock as BlockObject};

/// All version blocks of a moment.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// In the order of their names; a place in this list is how the rest of the planner calls a block.
    all: Vec<Block>,
    by_product: BTreeMap<Product, OfProduct>,
    nothing: OfProduct,
}

/// A version block as it is now.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) name: Arc<str>,
    pub(crate) generation: Option<i64>,
    pub(crate) action: BlockAction,
    /// What is wrong with it, if anything is.
    pub(crate) problem: Option<Problem>,
    /// What of it is in force.
    in_force: Option<(Product, VersionBlock)>,
}

/// What is wrong with a version block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// The blocks of one product, as routes carry them, with the place of each among all.
#[derive(Debug, Default)]
struct OfProduct {
    list: Arc<[VersionBlock]>,
    places: Vec<usize>,
}

impl Blocks {
    /// Reads the objects.
    ///
    /// | object | in force | Ready |
    /// |---|---|---|
    /// | makes sense, every range can be read | its ranges | True |
    /// | makes sense, some range cannot be read | the other ranges | False, with the range and why |
    /// | makes sense, no range can be read | nothing | False, with the range and why |
    /// | some or no range can be read, but it was in force before | that, and the ranges that can be read | as above |
    /// | makes no sense, but did before | what was in force | False, with the member and why |
    /// | makes no sense, and never did here | nothing | False, with the member and why |
    /// | deleted | nothing | |
    pub(crate) fn read(objects: &OrdMap<String, Arc<Observed<BlockObject>>>, before: &Blocks) -> Self {
        let all: Vec<Block> =
            objects.iter().map(|(name, object)| Block::read(name, object, before)).collect();
        let mut lists: BTreeMap<Product, (Vec<VersionBlock>, Vec<usize>)> = BTreeMap::new();
        for (place, block) in all.iter().enumerate() {
            if let Some((product, block)) = &block.in_force {
                let (list, places) = lists.entry(product.clone()).or_default();
                list.push(block.clone());
                places.push(place);
            }
        }
        let shared = |(product, (list, places)): (Product, (Vec<VersionBlock>, Vec<usize>))| {
            // The same list again is the same Arc again, so that routes stay what they were.
            let known = before.by_product.get(&product).filter(|known| *known.list == *list);
            let list = known.map_or_else(|| list.into(), |known| Arc::clone(&known.list));
            (product, OfProduct { list, places })
        };
        Self {
            by_product: lists.into_iter().map(shared).collect(),
            all,
            nothing: OfProduct { list: Arc::clone(&before.nothing.list), places: Vec::new() },
        }
    }

    /// Every block, in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Block> {
        self.all.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn name(&self, place: usize) -> Option<&Arc<str>> {
        self.all.get(place).map(|block| &block.name)
    }

    fn of(&self, product: &Product) -> &OfProduct {
        self.by_product.get(product).unwrap_or(&self.nothing)
    }

    /// What a route of this product carries.
    pub(crate) fn list(&self, product: &Product) -> &Arc<[VersionBlock]> {
        &self.of(product).list
    }
}

impl Block {
    fn read(name: &str, object: &Observed<BlockObject>, before: &Blocks) -> Self {
        let known = before.all.binary_search_by(|each| (*each.name).cmp(name)).ok();
        let known = known.and_then(|place| before.all.get(place));
        let name = known.map_or_else(|| name.into(), |known| Arc::clone(&known.name));
        let generation = object.about().generation;
        let spec = match object {
            Observed::Readable(object) => &object.spec,
            Observed::Unreadable(nonsense) => {
                let kept = known.and_then(|known| known.in_force.clone());
                let rest = if kept.is_some() {
                    "What was in force before stays in force."
                } else {
                    "Nothing of it is in force."
                };
                let message = format!("{}: {}. {rest}", nonsense.path, nonsense.problem);
                let problem = Some(Problem { reason: "InvalidSpec", message });
                let action = known.map_or(BlockAction::default(), |known| known.action);
                return Self { name, generation, action, problem, in_force: kept };
            }
        };
        let (mut ranges, unreadable) = spec.ranges();
        let problem = unreadable.first().map(|(at, error)| {
            // A typo must let nobody in: nobody knows which of the ranges before the nonsense stands for.
            let before = known.and_then(|known| known.in_force.as_ref());
            let before =
                before.filter(|(product, _)| *product == spec.product).map(|(_, block)| &block.ranges);
            let readable = ranges.len();
            for range in before.into_iter().flatten() {
                if !ranges.contains(range) {
                    ranges.push(range.clone());
                }
            }
            let rest = if ranges.len() > readable {
                "the others are in force, and so is what was in force before"
            } else {
                "the others are in force"
            };
            let message = format!(
                "spec.versions[{at}]: {error}. {} of {} ranges cannot be read; {rest}.",
                unreadable.len(),
                spec.versions.len()
            );
            Problem { reason: "InvalidRange", message }
        });
        let in_force = (!ranges.is_empty()).then(|| {
            let block = VersionBlock {
                name: Arc::clone(&name),
                ranges,
                reason: spec.reason.clone(),
                more_info: spec.more_info.clone(),
                action: spec.action,
            };
            (spec.product.clone(), block)
        });
        Self { name, generation, action: spec.action, problem, in_force }
    }
}

/// What blocks say about one version of a product: worked out once, since versions repeat.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) version: ReportedVersion,
    /// The places of the blocks that name it.
    pub(crate) named_by: Vec<usize>,
    /// The same blocks, for those who accepted some.
    blocks: Vec<VersionBlock>,
    /// The decision where none is accepted.
    admission: Admission,
}

impl Judged {
    fn new(blocks: &Blocks, product: &Product, text: &str, unknown: UnknownVersion) -> Self {
        let version = ReportedVersion::read(text, product.scheme());
        let OfProduct { list, places } = blocks.of(product);
        let known = version.known();
        let concerns = |block: &VersionBlock| known.is_some_and(|known| block.names(known));
        let (named_by, named): (Vec<usize>, Vec<VersionBlock>) = places
            .iter()
            .zip(&**list)
            .filter(|(_, block)| concerns(block))
            .map(|(at, b)| (*at, b.clone()))
            .unzip();
        let admission = policy::admit(&version, &named, &[], unknown);
        Self { version, named_by, blocks: named, admission }
    }

    /// The decision for an instance that accepted these blocks. Blocks that do not name the version decide nothing,
    /// so asking about those that do is asking about all.
    pub(crate) fn admission(&self, accepted: &[String], unknown: UnknownVersion) -> Admission {
        if accepted.is_empty() || self.named_by.is_empty() {
            self.admission.clone()
        } else {
            policy::admit(&self.version, &self.blocks, accepted, unknown)
        }
    }
}

/// Judged versions of one plan.
pub(crate) struct Judge<'a> {
    blocks: &'a Blocks,
    unknown: UnknownVersion,
    known: HashMap<Product, HashMap<String, Arc<Judged>, RandomState>, RandomState>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(blocks: &'a Blocks, unknown: UnknownVersion) -> Self {
        Self { blocks, unknown, known: HashMap::default() }
    }

    /// What is to be said about a version text; an empty one is no version.
    pub(crate) fn judge(&mut self, product: &Product, text: &str) -> Arc<Judged> {
        if let Some(judged) = self.known.get(product).and_then(|of_product| of_product.get(text)) {
            return Arc::clone(judged);
        }
        let judged = Arc::new(Judged::new(self.blocks, product, text, self.unknown));
        self.known.entry(product.clone()).or_default().insert(text.to_owned(), Arc::clone(&judged));
        judged
    }
}

/// How many instances a block concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    /// Instances whose version it names, enabled or not.
    pub(crate) matched: i64,
    /// Those of them that are enabled and have not accepted it: the block keeps them out, or would if it did not
    /// only warn.
    pub(crate) blocked: i64,
    /// Those of them that have accepted it.
    pub(crate) accepted: i64,
}

impl Tally {
    pub(crate) fn add(&mut self, more: Self) {
        let Self { matched, blocked, accepted } = more;
        self.matched += matched;
        self.blocked += blocked;
        self.accepted += accepted;
    }
}
