//! Summaries of values that were measured several times. Pure.

use serde::Serialize;

/// Summary of several values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Median.
    pub median: f64,
    /// Minimum.
    pub least: f64,
    /// Maximum.
    pub most: f64,
}

impl Summary {
    /// Returns the summary of values in any order, `None` for no values.
    pub fn from_values(mut values: Vec<f64>) -> Option<Summary> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let (left, right) = (values.get((values.len() - 1) / 2)?, values.get(values.len() / 2)?);
        Some(Summary { median: (left + right) / 2.0, least, most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_has_the_median() {
        let of = |values: &[f64]| Summary::from_values(values.to_vec()).unwrap();
        assert_eq!(of(&[3.0, 1.0, 2.0]), Summary { median: 2.0, least: 1.0, most: 3.0 });
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(of(&[7.0]), Summary { median: 7.0, least: 7.0, most: 7.0 });
        assert_eq!(Summary::from_values(Vec::new()), None);
    }
}
