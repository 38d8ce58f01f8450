//! How wrong forecasts were, as a distribution from which quantiles are drawn.

/// How many cells the errors are counted in.
const CELLS: usize = 120;
/// Cells are equally wide in the inverse hyperbolic sine of the error: fine near nothing, coarse far out.
const REACH: f64 = 6.0;
const PER_UNIT: f64 = CELLS as f64 / (2.0 * REACH);

/// Errors in units of their expected size, the older ones fading.
#[derive(Debug, Clone)]
pub(super) struct Residuals {
    counts: [f64; CELLS],
    weight: f64,
    growth: f64,
    /// Share, and share times error, of what lies in a cell and above it; as of the last [`Residuals::settle`].
    above: [(f64, f64); CELLS + 1],
}

impl Residuals {
    /// Makes one in which an error counts half after so many more.
    pub(super) fn new(half_life: f64) -> Self {
        let growth = (std::f64::consts::LN_2 / half_life).exp();
        Self { counts: [0.0; CELLS], weight: 1.0, growth, above: [(0.0, 0.0); CELLS + 1] }
    }

    pub(super) fn learn(&mut self, error: f64) {
        self.counts[cell(error)] += self.weight;
        self.weight *= self.growth;
    }

    /// Brings what is asked up to date with what was learnt.
    pub(super) fn settle(&mut self) {
        self.counts.iter_mut().for_each(|count| *count /= self.weight);
        self.weight = 1.0;
        let total: f64 = self.counts.iter().sum();
        if total <= 0.0 {
            return;
        }
        let (mut share, mut moment) = (0.0, 0.0);
        for at in (0..CELLS).rev() {
            let here = self.counts[at] / total;
            share += here;
            moment += here * f64::midpoint(edge(at), edge(at + 1));
            self.above[at] = (share, moment);
        }
    }

    /// Gives the error that is exceeded with probability `1 - quantile`.
    pub(super) fn quantile(&self, quantile: f64) -> f64 {
        let beyond = 1.0 - quantile;
        // The first cell above whose upper edge less than `beyond` lies.
        let at = self.above[..CELLS].partition_point(|(share, _)| *share > beyond).saturating_sub(1);
        let (here, over) = (self.above[at].0, self.above[at + 1].0);
        let part = if here > over { ((here - beyond) / (here - over)).clamp(0.0, 1.0) } else { 1.0 };
        edge(at) + part * (edge(at + 1) - edge(at))
    }

    /// Asks for what exceeds errors that grow, from this one on.
    pub(super) fn above(&self, error: f64) -> Above<'_> {
        let at = cell(error);
        Above { residuals: self, edges: &EDGES, cell: self.cell_at(at), at }
    }

    fn cell_at(&self, at: usize) -> Cell {
        let (low, high) = (edge(at), edge(at + 1));
        let (over, moment) = self.above[at + 1];
        Cell { high, width: high - low, over, moment, density: (self.above[at].0 - over) / (2.0 * (high - low)) }
    }
}

/// A cell, and what lies above it.
#[derive(Debug, Clone, Copy)]
struct Cell {
    high: f64,
    width: f64,
    /// Share, and share times error, of what lies above.
    over: f64,
    moment: f64,
    /// Half of the share in it, by its width: within a cell the errors are taken as spread evenly.
    density: f64,
}

/// What exceeds one error after another, each larger than the one before: its cell is found from the last one's, which
/// takes a tenth of the time of finding it anew.
#[derive(Debug, Clone, Copy)]
pub(super) struct Above<'a> {
    residuals: &'a Residuals,
    edges: &'static [f64; CELLS + 1],
    cell: Cell,
    at: usize,
}

impl Above<'_> {
    /// Gives the expected amount by which an error exceeds this one.
    pub(super) fn excess(&mut self, error: f64) -> f64 {
        if self.cell.high <= error && self.at + 1 < CELLS {
            while self.at + 1 < CELLS && self.edges[self.at + 1] <= error {
                self.at += 1;
            }
            self.cell = self.residuals.cell_at(self.at);
        }
        let Cell { high, width, over, moment, density } = self.cell;
        let inside = (high - error).clamp(0.0, width);
        (moment - over * error) + density * inside * inside
    }
}

fn cell(error: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by the line before")]
    let at = ((asinh(error) + REACH) * PER_UNIT).clamp(0.0, CELLS as f64 - 1.0) as usize;
    at
}

/// Gives the inverse hyperbolic sine, to fewer digits than the standard library does and in a third of its time.
fn asinh(error: f64) -> f64 {
    let size = error.abs();
    (size + (size * size + 1.0).sqrt()).ln().copysign(error)
}

fn edge(at: usize) -> f64 {
    EDGES[at]
}

/// Edges of the cells.
static EDGES: std::sync::LazyLock<[f64; CELLS + 1]> =
    std::sync::LazyLock::new(|| std::array::from_fn(|at| (at as f64 / PER_UNIT - REACH).sinh()));

#[cfg(test)]
mod tests {
    use super::*;

    fn of(errors: impl Iterator<Item = f64>) -> Residuals {
        let mut residuals = Residuals::new(1e9);
        errors.for_each(|error| residuals.learn(error));
        residuals.settle();
        residuals
    }

    #[test]
    fn its_quantiles_are_those_of_what_it_learnt() {
        let even = of((0..10_000).map(|at| f64::from(at) / 5000.0 - 1.0));
        for quantile in [0.05, 0.5, 0.9, 0.95, 0.99] {
            let expected = 2.0 * quantile - 1.0;
            // Within a cell, a tenth wide here, errors are taken as spread evenly.
            assert!((even.quantile(quantile) - expected).abs() < 0.06, "{quantile}: {}", even.quantile(quantile));
        }
    }

    #[test]
    fn the_excess_is_the_mean_of_what_sticks_out() {
        let errors = || (0..10_000).map(|at| f64::from(at) / 1000.0 - 2.0);
        let residuals = of(errors());
        for from in [-3.0, -1.0, 0.0, 2.5, 7.0, 9.0] {
            let expected = errors().map(|error| (error - from).max(0.0)).sum::<f64>() / 10_000.0;
            let excess = residuals.above(from).excess(from);
            assert!((excess - expected).abs() < 0.05, "{from}: {excess} {expected}");
        }
        let mut above = residuals.above(-3.0);
        for step in 0..120 {
            let error = -3.0 + 0.1 * f64::from(step);
            let anew = residuals.above(error).excess(error);
            assert!((above.excess(error) - anew).abs() < 1e-9, "{error}: walking up finds what is found anew");
        }
    }

    #[test]
    fn errors_beyond_all_measure_stay_in_the_last_cell() {
        let wild = of([f64::INFINITY, 1e30, -1e30].into_iter());
        assert!(wild.quantile(0.99).is_finite() && wild.above(0.0).excess(0.0).is_finite());
    }
}
