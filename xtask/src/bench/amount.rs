//! A result that is no time: how much of something, and how much it may be.

use std::fmt;

use serde_json::{Value, json};

/// What an amount is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Kilobytes of 1,000 bytes.
    Kilobytes,
    Milliseconds,
    /// Things, bytes too where each of them counts.
    Count,
}

/// One measured amount.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Amount {
    /// Id of the target.
    pub(super) id: &'static str,
    /// What was measured.
    pub(super) name: String,
    /// How much.
    pub(super) value: f64,
    /// Of what.
    pub(super) unit: Unit,
    /// The most that it may be; without it the amount explains others.
    pub(super) at_most: Option<f64>,
}

impl Unit {
    /// Name of the member for programs.
    fn member(self) -> &'static str {
        match self {
            Self::Kilobytes => "kilobytes",
            Self::Milliseconds => "milliseconds",
            Self::Count => "count",
        }
    }

    /// What stands behind a number, for people.
    fn sign(self) -> &'static str {
        match self {
            Self::Kilobytes => " kB",
            Self::Milliseconds => " ms",
            Self::Count => "",
        }
    }
}

impl Amount {
    /// Whether the target is met, if there is one.
    fn is_met(&self) -> Option<bool> {
        self.at_most.map(|most| self.value <= most)
    }

    /// The amount for programs.
    pub(super) fn to_json(&self) -> Value {
        // A tenth of a kilobyte is nothing; of a millisecond it may be all.
        let digits = if self.unit == Unit::Milliseconds { 1e3 } else { 10.0 };
        json!({
            "id": self.id,
            "name": self.name,
            self.unit.member(): (self.value * digits).round() / digits,
            "at_most": self.at_most,
            "met": self.is_met(),
        })
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, sign) = (self.value, self.unit.sign());
        write!(f, "{}  {:<58} ", self.id, self.name)?;
        match self.unit {
            Unit::Kilobytes => write!(f, "{value:>9.1}{sign}")?,
            Unit::Milliseconds => write!(f, "{value:>9.2}{sign}")?,
            Unit::Count => write!(f, "{value:>9}{sign}")?,
        }
        match (self.at_most, self.is_met()) {
            (Some(most), Some(true)) => write!(f, "  target: at most {most}{sign}: met"),
            (Some(most), _) => write!(f, "  target: at most {most}{sign}: missed"),
            (None, _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_says_whether_it_is_small_enough() {
        let amount = |value, at_most| Amount {
            id: "E6",
            name: "keeper".into(),
            value,
            unit: Unit::Kilobytes,
            at_most,
        };
        let text = |amount: Amount| amount.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(text(amount(3.94, Some(4.0))), "E6 keeper 3.9 kB target: at most 4 kB: met");
        assert_eq!(text(amount(5.0, Some(4.0))), "E6 keeper 5.0 kB target: at most 4 kB: missed");
        assert_eq!(text(amount(5.0, None)), "E6 keeper 5.0 kB");
        assert_eq!(amount(5.0, Some(4.0)).to_json()["met"], false);
        assert_eq!(amount(3.94, None).to_json()["kilobytes"], 3.9);
        let time = Amount { unit: Unit::Milliseconds, ..amount(1.5449, Some(1.6)) };
        assert_eq!(text(time.clone()), "E6 keeper 1.54 ms target: at most 1.6 ms: met");
        assert_eq!(time.to_json()["milliseconds"], 1.545);
        let lost = Amount { unit: Unit::Count, ..amount(7.0, Some(0.0)) };
        assert_eq!(text(lost), "E6 keeper 7 target: at most 0: missed");
    }
}
