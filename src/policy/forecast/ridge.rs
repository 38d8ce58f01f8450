//! Linear regression that learns one row at a time and forgets slowly.

/// Least squares with a ridge, kept as normal equations: a row costs `N²/2` multiplications, a fit a few microseconds.
///
/// Rows weigh less the older they are. The ridge is relative to each feature's own energy, so features need no common
/// unit, and it pulls to zero: whoever predicts changes falls back to "no change" where the features say little.
#[derive(Debug, Clone)]
pub(super) struct Ridge<const N: usize> {
    /// Lower triangle of the weighted sum of `x xᵀ`.
    gram: [[f64; N]; N],
    moment: [f64; N],
    weights: [f64; N],
    /// The weight of the next row; it grows, which lets the older ones fade without being touched.
    row_weight: f64,
    growth: f64,
    pull: f64,
}

impl<const N: usize> Ridge<N> {
    /// Makes one whose rows lose half their weight in so many rows.
    pub(super) fn new(half_life: f64, pull: f64) -> Self {
        let growth = (std::f64::consts::LN_2 / half_life).exp();
        Self { gram: [[0.0; N]; N], moment: [0.0; N], weights: [0.0; N], row_weight: 1.0, growth, pull }
    }

    /// Learns that `x` came with `y`.
    pub(super) fn learn(&mut self, x: &[f64; N], y: f64) {
        let weight = self.row_weight;
        for (row, sums) in self.gram.iter_mut().enumerate() {
            let scaled = weight * x[row];
            for (sum, other) in sums[..=row].iter_mut().zip(x) {
                *sum += scaled * other;
            }
            self.moment[row] += scaled * y;
        }
        self.row_weight *= self.growth;
    }

    /// Fits the weights to what was learnt so far.
    pub(super) fn fit(&mut self) {
        self.rescale();
        let mut lower = self.gram;
        let mean = (0..N).map(|at| lower[at][at]).sum::<f64>() / N as f64;
        for (at, row) in lower.iter_mut().enumerate() {
            // A feature that never moved gets a ridge too: it must not make the matrix singular.
            row[at] += self.pull * row[at] + 1e-9 * mean + 1e-12;
        }
        if factorise(&mut lower) {
            self.weights = substitute(&lower, &self.moment);
        }
    }

    pub(super) fn predict(&self, x: &[f64; N]) -> f64 {
        x.iter().zip(&self.weights).map(|(feature, weight)| feature * weight).sum()
    }

    /// Brings the growing weights back to one before they leave the range of numbers.
    fn rescale(&mut self) {
        let factor = 1.0 / self.row_weight;
        for (row, moment) in self.gram.iter_mut().zip(&mut self.moment) {
            for sum in row.iter_mut() {
                *sum *= factor;
            }
            *moment *= factor;
        }
        self.row_weight = 1.0;
    }
}

/// Factorises a symmetric positive definite matrix in place (Cholesky); false when it is none.
fn factorise<const N: usize>(lower: &mut [[f64; N]; N]) -> bool {
    for row in 0..N {
        for column in 0..=row {
            let sum: f64 = (0..column).map(|at| lower[row][at] * lower[column][at]).sum();
            let rest = lower[row][column] - sum;
            if row == column {
                if rest <= 0.0 || !rest.is_finite() {
                    return false;
                }
                lower[row][row] = rest.sqrt();
            } else {
                lower[row][column] = rest / lower[column][column];
            }
        }
    }
    true
}

/// Solves `L Lᵀ w = b`.
fn substitute<const N: usize>(lower: &[[f64; N]; N], right: &[f64; N]) -> [f64; N] {
    let mut solved = *right;
    for row in 0..N {
        let sum: f64 = (0..row).map(|at| lower[row][at] * solved[at]).sum();
        solved[row] = (solved[row] - sum) / lower[row][row];
    }
    for row in (0..N).rev() {
        let sum: f64 = (row + 1..N).map(|at| lower[at][row] * solved[at]).sum();
        solved[row] = (solved[row] - sum) / lower[row][row];
    }
    solved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_the_weights_of_a_linear_law() {
        let mut ridge = Ridge::<3>::new(1000.0, 1e-6);
        for row in 0..500 {
            let x = [1.0, f64::from(row % 7), f64::from(row % 11)];
            ridge.learn(&x, 2.0 - 0.5 * x[1] + 3.0 * x[2]);
        }
        ridge.fit();
        assert!((ridge.predict(&[1.0, 2.0, 5.0]) - 16.0).abs() < 1e-3);
    }

    #[test]
    fn it_forgets_a_law_that_no_longer_holds() {
        let mut ridge = Ridge::<1>::new(100.0, 1e-6);
        (0..2000).for_each(|row| ridge.learn(&[1.0], if row < 1000 { 1.0 } else { 5.0 }));
        ridge.fit();
        assert!((ridge.predict(&[1.0]) - 5.0).abs() < 0.01);
    }

    #[test]
    fn a_feature_that_never_moves_harms_nothing() {
        let mut ridge = Ridge::<2>::new(100.0, 1e-3);
        (0..100).for_each(|row| ridge.learn(&[f64::from(row % 5), 0.0], f64::from(row % 5)));
        ridge.fit();
        assert!((ridge.predict(&[3.0, 0.0]) - 3.0).abs() < 0.05);
        let mut untaught = Ridge::<2>::new(100.0, 1e-3);
        untaught.fit();
        assert!(untaught.predict(&[1.0, 1.0]).abs() < 1e-9);
    }
}
