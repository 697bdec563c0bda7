//! Counters and gauges in the text that Prometheus reads (exposition format 0.0.4).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, and its name ends in `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// The metrics of one scrape, grouped by name whoever adds them.
#[derive(Debug, Default)]
pub struct Metrics(BTreeMap<Cow<'static, str>, Family>);

#[derive(Debug)]
struct Family {
    kind: Kind,
    help: Cow<'static, str>,
    /// By their labels as they are printed.
    samples: BTreeMap<String, u64>,
}

impl Metrics {
    /// Adds to a number; the parts that threads and roles add make one. Labels are names and values; `help` and `kind` of the
    /// first sample of a name count.
    pub fn add(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        kind: Kind,
        help: impl Into<Cow<'static, str>>,
        labels: &[(&str, &str)],
        value: impl Into<u64>,
    ) {
        let family = self.0.entry(name.into()).or_insert_with(|| Family {
            kind,
            help: help.into(),
            samples: BTreeMap::new(),
        });
        *family.samples.entry(printed(labels)).or_default() += value.into();
    }

    /// All of them, by name.
    #[must_use]
    pub fn into_text(self) -> String {
        let mut text = String::new();
        for (
            name,
            Family {
                kind,
                help,
                samples,
            },
        ) in self.0
        {
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            for (labels, value) in samples {
                _ = writeln!(text, "{name}{labels} {value}");
            }
        }
        text
    }
}

/// `{name="value",…}`, or nothing.
fn printed(labels: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (position, (label, value)) in labels.iter().enumerate() {
        text.push(if position == 0 { '{' } else { ',' });
        text.push_str(label);
        text.push_str("=\"");
        for character in value.chars() {
            match character {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                plain => text.push(plain),
            }
        }
        text.push('"');
    }
    if !labels.is_empty() {
        text.push('}');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_one_name_stand_together_sum_up_and_have_their_labels_escaped() {
        let mut metrics = Metrics::default();
        metrics.add(
            "scale0_b_total",
            Kind::Counter,
            "B.",
            &[("service", "a\"b\\c\nd"), ("to", "x")],
            1_u64,
        );
        metrics.add("scale0_a", Kind::Gauge, "A.", &[], 2_u32);
        metrics.add(
            "scale0_b_total",
            Kind::Counter,
            "B.",
            &[("service", "y")],
            3_u64,
        );
        metrics.add(
            "scale0_b_total",
            Kind::Counter,
            "B.",
            &[("service", "y")],
            4_u64,
        );
        let expected = "# HELP scale0_a A.\n# TYPE scale0_a gauge\nscale0_a 2\n\
            # HELP scale0_b_total B.\n# TYPE scale0_b_total counter\n\
            scale0_b_total{service=\"a\\\"b\\\\c\\nd\",to=\"x\"} 1\nscale0_b_total{service=\"y\"} 7\n";
        assert_eq!(metrics.into_text(), expected);
    }
}
