//! What `/metrics` prints, and what its page says of it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use support::{Origin, Scale0, empty, get, site};

/// A metric, as it is printed or as it is documented.
#[derive(Debug, Default, PartialEq, Eq)]
struct Metric {
    is_counter: bool,
    labels: BTreeSet<String>,
    help: String,
}

type Metrics = BTreeMap<String, Metric>;

/// The rows of all tables whose first column is a metric.
fn documented() -> Metrics {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = page.lines().filter_map(|line| {
        let (named, meaning) = line.strip_prefix("| `scale0_")?.split_once("` | ")?;
        let (name, labels) = named.split_once('{').unwrap_or((named, ""));
        let labels = labels.trim_end_matches('}').split(',');
        let metric = Metric {
            is_counter: name.ends_with("_total"),
            labels: (labels.filter(|label| !label.is_empty()))
                .map(str::to_owned)
                .collect(),
            help: meaning.trim_end_matches(" |").to_owned(),
        };
        Some((format!("scale0_{name}"), metric))
    });
    let mut metrics = Metrics::new();
    for (name, metric) in rows {
        assert!(
            metrics.insert(name.clone(), metric).is_none(),
            "{name} stands there twice"
        );
    }
    metrics
}

/// What a page says of a process with every role, and with that store.
async fn print(store: &str, metrics: &mut Metrics) {
    let app = Origin::start(|_| async { http::Response::new(empty()) }).await;
    let more = format!(
        "[cache]\nstore = \"{store}\"\npath = \"store\"\ncapacity = \"64MiB\"\n[log]\naccess = \"off\"\n"
    );
    let scale0 = Scale0::start(&site(&app, more)).await;
    scale0
        .until_metric("scale0_store_open", |open| open == 1.0)
        .await;
    scale0
        .until_metric("scale0_broker_service_backends", |backends| 0.0 < backends)
        .await;
    let page = get(scale0.admin(), "/metrics").await.text();
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            metrics.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            metrics.get_mut(name).unwrap().is_counter = kind == "counter";
        } else {
            let (sample, _value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            let labels = labels.trim_end_matches('}').split("\",");
            let names = labels.filter_map(|label| Some(label.split_once("=\"")?.0.to_owned()));
            metrics.get_mut(name).unwrap().labels.extend(names);
        }
    }
}

#[tokio::test]
async fn what_is_printed_is_documented_with_its_kind_and_labels_and_the_other_way_round() {
    let mut printed = Metrics::new();
    for store in ["file", "sled"] {
        print(store, &mut printed).await;
    }
    let documented = documented();
    let names = |metrics: &Metrics| metrics.keys().cloned().collect::<BTreeSet<_>>();
    let difference: Vec<_> = names(&printed)
        .symmetric_difference(&names(&documented))
        .cloned()
        .collect();
    assert!(difference.is_empty(), "only on one side: {difference:#?}");
    for (name, metric) in &printed {
        let told = &documented[name];
        assert_eq!(metric.is_counter, told.is_counter, "the kind of {name}");
        assert_eq!(metric.labels, told.labels, "the labels of {name}");
        if name.starts_with("scale0_cache_") || name.starts_with("scale0_store_") {
            assert_eq!(metric.help, format!("{}.", told.help), "{name}");
        }
    }
}
