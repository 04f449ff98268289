//! A result that is no time: how much of something, and how much it may be.

use std::fmt;

use serde_json::{Value, json};

/// One measured amount.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Amount {
    /// Id of the target.
    pub(super) id: &'static str,
    /// What was measured.
    pub(super) name: String,
    /// Kilobytes of 1,000 bytes.
    pub(super) kilobytes: f64,
    /// The most that it may be; without it the amount explains others.
    pub(super) at_most: Option<f64>,
}

impl Amount {
    /// Whether the target is met, if there is one.
    fn is_met(&self) -> Option<bool> {
        self.at_most.map(|most| self.kilobytes <= most)
    }

    /// The amount for programs.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "name": self.name,
            "kilobytes": (self.kilobytes * 10.0).round() / 10.0,
            "at_most": self.at_most,
            "met": self.is_met(),
        })
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {:<58} {:>9.1} kB", self.id, self.name, self.kilobytes)?;
        match (self.at_most, self.is_met()) {
            (Some(most), Some(true)) => write!(f, "  target: at most {most} kB: met"),
            (Some(most), _) => write!(f, "  target: at most {most} kB: missed"),
            (None, _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_says_whether_it_is_small_enough() {
        let amount = |kilobytes, at_most| Amount { id: "E6", name: "keeper".into(), kilobytes, at_most };
        let text = |amount: Amount| amount.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(text(amount(3.94, Some(4.0))), "E6 keeper 3.9 kB target: at most 4 kB: met");
        assert_eq!(text(amount(5.0, Some(4.0))), "E6 keeper 5.0 kB target: at most 4 kB: missed");
        assert_eq!(text(amount(5.0, None)), "E6 keeper 5.0 kB");
        assert_eq!(amount(5.0, Some(4.0)).to_json()["met"], false);
    }
}
