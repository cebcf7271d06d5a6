//! Breadth-first exploration: every state once, the nearest first.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    hash::{BuildHasherDefault, Hasher},
};

use crate::refresh::core::model::{
    properties::{Property, Violation},
    world::{Action, Left, World},
};

/// What an exploration has found.
pub(super) struct Report {
    pub(super) states: usize,
    pub(super) transitions: usize,
    /// The longest of the shortest ways to a state.
    pub(super) depth: usize,
    /// Whether the limit was reached before all states were.
    pub(super) is_cut: bool,
    /// The first violation of each property, and how it comes about.
    pub(super) found: Vec<(Violation, Vec<Action>)>,
}

impl Report {
    fn add(&mut self, violation: Violation, way: impl FnOnce() -> Vec<Action>) {
        if !self.has(violation.property) {
            self.found.push((violation, way()));
        }
    }

    pub(super) fn has(&self, property: Property) -> bool {
        self.found
            .iter()
            .any(|(found, _)| found.property == property)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extent = match (self.is_cut, self.found.is_empty()) {
            (true, _) => "the nearest ",
            (false, true) => "all ",
            (false, false) => "",
        };
        write!(
            f,
            "{extent}{} states, {} transitions, {} deep",
            self.states, self.transitions, self.depth
        )?;
        for (violation, actions) in &self.found {
            write!(f, "\n{:?}: {}", violation.property, violation.details)?;
            for action in actions {
                write!(f, "\n  {action:?}")?;
            }
        }
        Ok(())
    }
}

/// Digests are hashes already.
#[derive(Default)]
pub(super) struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, digest: u64) {
        self.0 = digest;
    }
}

type Digests<V> = HashMap<u64, V, BuildHasherDefault<Same>>;

type Set = HashSet<u64, BuildHasherDefault<Same>>;

/// Explores all states that can be reached, up to `limit` of them, or until the wanted property is violated. Nothing follows
/// a violation.
pub(super) fn explore(mut start: World, limit: usize, wanted: Option<Property>) -> Report {
    let first = start.digest();
    let mut exploration = Exploration {
        report: Report {
            states: 1,
            transitions: 0,
            depth: 0,
            is_cut: false,
            found: Vec::new(),
        },
        origins: Digests::from_iter([(first, (first, None))]),
        settled: Set::default(),
    };
    let mut queue = VecDeque::from([(start, first, 0)]);
    while let Some((world, digest, depth)) = queue.pop_front() {
        exploration.report.depth = depth;
        for action in world.actions() {
            let next = exploration.follow(world.clone(), digest, action);
            let report = &mut exploration.report;
            if wanted.is_some_and(|wanted| report.has(wanted)) {
                return exploration.report;
            }
            if let Some((next, reached)) = next {
                report.states += 1;
                if report.states >= limit {
                    report.is_cut = true;
                    return exploration.report;
                }
                queue.push_back((next, reached, depth + 1));
            }
        }
    }
    exploration.report
}

struct Exploration {
    report: Report,
    /// The state before each state, and the action between them.
    origins: Digests<(u64, Option<Action>)>,
    /// States from which everything ends.
    settled: Set,
}

impl Exploration {
    /// Does what can happen next. Returns the state after it, with its digest, if it is new and violates nothing.
    fn follow(&mut self, mut world: World, digest: u64, action: Action) -> Option<(World, u64)> {
        world.act(action);
        self.report.transitions += 1;
        let reached = world.digest();
        let is_new = !self.origins.contains_key(&reached);
        if is_new {
            self.origins.insert(reached, (digest, Some(action)));
        }
        let mut tail = Vec::new();
        let mut violations = std::mem::take(&mut world.violations);
        let is_broken = !violations.is_empty();
        if is_new && !is_broken {
            violations = settle(world.clone(), &mut self.settled, &mut tail);
        }
        for violation in violations {
            let origins = &self.origins;
            self.report.add(violation, || {
                let mut way = way_to(digest, origins);
                way.push(action);
                way.extend(&tail);
                way
            });
        }
        (is_new && !is_broken).then_some((world, reached))
    }
}

/// Lets everything end, as it does if nothing goes wrong any more. `settled` are the states from which it does.
fn settle(mut world: World, settled: &mut Set, way: &mut Vec<Action>) -> Vec<Violation> {
    // Nothing else happens.
    world.left = Left::default();
    let mut passed = Vec::new();
    loop {
        let digest = world.digest();
        if settled.contains(&digest) {
            break;
        }
        let is_circle = passed.contains(&digest);
        passed.push(digest);
        let next = if is_circle { None } else { world.cooperate() };
        match next {
            Some(action) => {
                way.push(action);
                world.act(action);
            }
            None => world.check_end(),
        }
        if !world.violations.is_empty() {
            return world.violations;
        }
        if next.is_none() {
            break;
        }
    }
    settled.extend(passed);
    Vec::new()
}

fn way_to(mut digest: u64, origins: &Digests<(u64, Option<Action>)>) -> Vec<Action> {
    let mut way = Vec::new();
    while let Some((before, Some(action))) = origins.get(&digest) {
        way.push(*action);
        digest = *before;
    }
    way.reverse();
    way
}
