//! The least that a set of pods can cost: exactly, as a mixed integer program over the ways to fill a node, and from
//! below, as its linear relaxation.
//!
//! A way to fill a node says how many pods of each kind lie on it. A program over these, and not over pods and nodes, has
//! no two solutions that differ in names alone, and its relaxation lies within about a node of its optimum.

use super::{Size, Type};
use good_lp::{Expression, ProblemVariables, Solution, SolverModel, Variable, constraint, microlp, variable, variables};
use std::collections::BTreeMap;

/// In so many steps a node's best filling is sought; what they do not rule out is then believed possible.
const STEPS: u32 = 20_000;
/// So many times the relaxation is made tighter at most.
const ROUNDS: usize = 60;
/// The bound is close enough to its relaxation at this share.
const CLOSE: f64 = 0.999;

/// The kinds of the pods, and how many there are of each.
pub(super) fn kinds(pods: &[Size]) -> Vec<(Size, u32)> {
    let mut kinds: BTreeMap<Size, u32> = BTreeMap::new();
    for pod in pods {
        *kinds.entry(*pod).or_default() += 1;
    }
    kinds.into_iter().collect()
}

/// Gives the optimum: which nodes to buy, and how each is filled. It is for few pods, since all fillings are listed.
pub(super) fn optimum(pods: &[Size], types: &[Type]) -> u64 {
    let kinds = kinds(pods);
    let fillings = fillings(&kinds, types);
    let mut variables = variables!();
    let nodes: Vec<Variable> =
        fillings.iter().map(|_| variables.add(variable().integer().min(0).max(u32::try_from(pods.len()).unwrap_or(u32::MAX)))).collect();
    let price: Expression = fillings.iter().zip(&nodes).map(|((_, price), node)| dollars(*price) * *node).sum();
    let holding =
        |kind: usize| -> Expression { fillings.iter().zip(&nodes).map(|((filling, _), node)| f64::from(filling[kind]) * *node).sum() };
    let mut model = variables.minimise(price).using(microlp);
    for (kind, (_, number)) in kinds.iter().enumerate() {
        model.add_constraint(constraint!(holding(kind) >= f64::from(*number)));
    }
    let solution = model.solve().expect("each pod fits a type");
    let bought = |node: &Variable| -> u64 { format!("{:.0}", solution.value(*node).abs()).parse().expect("a number of nodes") };
    fillings.iter().zip(&nodes).map(|((_, price), node)| price * bought(node)).sum()
}

/// Lists the fillings to which no pod can be added, each with the price of the cheapest type that holds it.
fn fillings(kinds: &[(Size, u32)], types: &[Type]) -> BTreeMap<Vec<u32>, u64> {
    fn extend(kinds: &[(Size, u32)], price: u64, room: Size, filling: &mut Vec<u32>, all: &mut BTreeMap<Vec<u32>, u64>) {
        let Some((size, number)) = kinds.get(filling.len()) else {
            let can_grow = kinds.iter().zip(&*filling).any(|((size, number), has)| has < number && super::holds(room, *size));
            if !can_grow {
                all.entry(filling.clone()).and_modify(|least| *least = price.min(*least)).or_insert(price);
            }
            return;
        };
        for taken in 0..=times(*size, room).min(*number) {
            filling.push(taken);
            extend(kinds, price, less(room, *size, taken), filling, all);
            filling.pop();
        }
    }
    let mut all = BTreeMap::new();
    for (_, room, price) in types {
        extend(kinds, *price, *room, &mut Vec::new(), &mut all);
    }
    all
}

/// Gives a price below which no set of nodes holds the pods: that of the relaxation, in which a part of a node may be
/// bought, found from its dual.
///
/// Each kind of pod gets a value such that no filling of a node is worth more than the node. What all pods are worth is
/// then no more than any nodes that hold them; the values are those that make it most. Fillings are found as they are
/// needed, and the values taken down by the most that one exceeds its node, so that the bound holds whenever one stops.
pub(super) fn lower_bound(pods: &[Size], types: &[Type]) -> f64 {
    let kinds = kinds(pods);
    let mut known: Vec<(Vec<u32>, u64)> = Vec::new();
    for (_, room, price) in types {
        for (kind, (size, number)) in kinds.iter().enumerate() {
            let alone = |other: usize| if other == kind { times(*size, *room).min(*number) } else { 0 };
            let filling: Vec<u32> = (0..kinds.len()).map(alone).collect();
            if filling[kind] > 0 {
                known.push((filling, *price));
            }
        }
    }
    let mut best = 0.0_f64;
    for _ in 0..ROUNDS {
        let (worth, values) = values(&kinds, &known);
        let (mut excess, before) = (1.0_f64, known.len());
        for (_, room, price) in types {
            let (filling, most) = fullest(&kinds, &values, *room, dollars(*price));
            excess = excess.max(most / dollars(*price));
            if filling.iter().any(|number| *number > 0) {
                known.push((filling, *price));
            }
        }
        best = best.max(worth / excess);
        if best >= worth * CLOSE || known.len() == before {
            break;
        }
    }
    best * MICRO
}

/// Gives the values of the kinds at which the pods are worth most, and how much, if these fillings were all.
fn values(kinds: &[(Size, u32)], fillings: &[(Vec<u32>, u64)]) -> (f64, Vec<f64>) {
    let mut variables = ProblemVariables::new();
    let values: Vec<Variable> = kinds.iter().map(|_| variables.add(variable().min(0))).collect();
    let sum = |numbers: &mut dyn Iterator<Item = u32>| -> Expression {
        numbers.zip(&values).map(|(number, value)| f64::from(number) * *value).sum()
    };
    let worth = sum(&mut kinds.iter().map(|(_, number)| *number));
    let mut model = variables.maximise(worth.clone()).using(microlp);
    for (filling, price) in fillings {
        model.add_constraint(constraint!(sum(&mut filling.iter().copied()) <= dollars(*price)));
    }
    let solution = model.solve().expect("each pod fits a type, so that its value has a limit");
    (solution.eval(worth), values.iter().map(|value| solution.value(*value).max(0.0)).collect())
}

/// Gives a filling that is worth most, and the most that any may be worth, where that exceeds `price`.
fn fullest(kinds: &[(Size, u32)], values: &[f64], room: Size, price: f64) -> (Vec<u32>, f64) {
    let full = |size: Size| f64::from(size.0) / f64::from(room.0) + f64::from(size.1) / f64::from(room.1);
    let mut order: Vec<usize> = (0..kinds.len()).filter(|kind| values[*kind] > 0.0).collect();
    let density = |kind: usize| values[kind] / full(kinds[kind].0);
    order.sort_by(|one, other| density(*other).total_cmp(&density(*one)));
    let mut search = Search {
        kinds,
        values,
        order,
        full: &full,
        steps: STEPS,
        filling: vec![0; kinds.len()],
        best: vec![0; kinds.len()],
        most: price,
        open: price,
    };
    search.go(0, room, 0.0);
    (search.best, search.most.max(search.open))
}

/// A search for the best filling, kind by kind.
struct Search<'s> {
    kinds: &'s [(Size, u32)],
    values: &'s [f64],
    /// The kinds in the order in which they are taken: those that are worth most for the room that they take come first.
    order: Vec<usize>,
    /// How much of a node of its two kinds of room a pod takes, 0 to 2.
    full: &'s dyn Fn(Size) -> f64,
    steps: u32,
    filling: Vec<u32>,
    best: Vec<u32>,
    /// What the best is worth.
    most: f64,
    /// What may be worth more, of all that was not looked at for want of steps.
    open: f64,
}

impl Search<'_> {
    fn go(&mut self, depth: usize, room: Size, worth: f64) {
        let Some(kind) = self.order.get(depth).copied() else {
            if worth > self.most {
                (self.best, self.most) = (self.filling.clone(), worth);
            }
            return;
        };
        let (size, number) = self.kinds[kind];
        let possible = worth + self.values[kind] / (self.full)(size) * (self.full)(room);
        if possible <= self.most {
            return;
        }
        if self.steps == 0 {
            self.open = self.open.max(possible);
            return;
        }
        self.steps -= 1;
        for taken in (0..=times(size, room).min(number)).rev() {
            self.filling[kind] = taken;
            self.go(depth + 1, less(room, size, taken), worth + self.values[kind] * f64::from(taken));
        }
        self.filling[kind] = 0;
    }
}

fn times(size: Size, room: Size) -> u32 {
    (room.0 / size.0).min(room.1 / size.1)
}

fn less(room: Size, size: Size, number: u32) -> Size {
    (room.0 - size.0 * number, room.1 - size.1 * number)
}

const MICRO: f64 = 1e6;

/// Solvers like numbers about one.
#[expect(clippy::cast_precision_loss, reason = "the price of a node")]
fn dollars(price: u64) -> f64 {
    price as f64 / MICRO
}
