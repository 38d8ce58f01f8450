//! Looks at the whole world at once: every source at the same time, each with its own deadline.

use super::forecasts::Forecasts;
use super::settings::Settings;
use crate::model::snapshot::{Observed, Pause, UtilisationReport};
use crate::model::{ClusterView, Instance, Missing, Reading, RuleName};
use crate::ports::cloud::Catalogue;
use crate::ports::{Clock, Cloud, CloudError, Cluster, Ledger, LedgerError, Measurement, Metrics, Telemetry, World};
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the sources said. The journal is added when the plan is made, so that it is the newest.
pub struct Observation {
    /// Kubernetes.
    pub cluster: Observed<Arc<ClusterView>>,
    /// EC2's instances.
    pub instances: Observed<Vec<Instance>>,
    /// EC2's catalogue.
    pub catalogue: Observed<Arc<Catalogue>>,
    /// Prometheus's utilisation.
    pub utilisation: Observed<UtilisationReport>,
    /// Prometheus's answers to the `[[metric]]` rules.
    pub metrics: BTreeMap<RuleName, Reading>,
    /// The demands that are followed, read on; `None` in an urgent turn.
    pub forecasts: Option<Forecasts>,
    /// The pause; `Err` when the ledger does not say.
    pub pause: Result<Option<Pause>, LedgerError>,
}

/// Asks every source, Kubernetes last, so that what it shows is the newest. An urgent turn does not
/// wait for Prometheus, which it does not need; it takes no forecasts along.
/// One for pods waits for more of them before it looks.
pub async fn observe<W: World>(world: Arc<W>, settings: Arc<Settings>, forecasts: Option<Forecasts>, for_pods: bool) -> Observation {
    let urgent = forecasts.is_none();
    let utilisation = async { if urgent { Observed::Unknown(Missing::NotAsked) } else { world.metrics().utilisation().await } };
    let metrics = async {
        let asked = settings.queries().map(|(rule, query)| async {
            let reading = if urgent { Reading::Missing(Missing::NotAsked) } else { world.metrics().query(rule, query).await };
            (rule.clone(), reading)
        });
        join_all(asked).await.into_iter().collect()
    };
    let read_on = async {
        let mut forecasts = forecasts?;
        forecasts.read(&*world).await;
        Some(forecasts)
    };
    let listed_at = world.clock().now();
    let batch = async {
        if for_pods {
            tokio::time::sleep(settings.operations.batch).await;
        }
    };
    let ((), instances, catalogue, utilisation, metrics, forecasts, pause) =
        futures::join!(batch, world.cloud().instances(), world.cloud().catalogue(), utilisation, metrics, read_on, world.ledger().pause());
    let cluster = world.cluster().view().await;
    failed(&*world, "kubernetes", &cluster);
    failed(&*world, "prometheus", &utilisation);
    let metrics: BTreeMap<RuleName, Reading> = metrics;
    for reading in metrics.values() {
        if let Reading::Missing(why) = reading {
            count(&*world, "prometheus", why);
        }
    }
    for why in forecasts.iter().flat_map(Forecasts::troubles) {
        count(&*world, "prometheus", why);
    }
    if let Err(error) = &pause {
        world.telemetry().record(Measurement::PortFailed { port: "dynamodb", class: error.class() });
    }
    let known = |answer: Result<_, CloudError>| asked(&*world, answer, listed_at);
    let instances = known(instances);
    let read_at = catalogue.as_ref().ok().and_then(|catalogue| catalogue.read_at);
    let catalogue = asked(&*world, catalogue, read_at.unwrap_or(listed_at));
    Observation { cluster, instances, catalogue, utilisation, metrics, forecasts, pause }
}

fn failed<W: World, T>(world: &W, port: &'static str, answer: &Observed<T>) {
    if let Observed::Unknown(why) = answer {
        count(world, port, why);
    }
}

fn count<W: World>(world: &W, port: &'static str, why: &Missing) {
    let class = match why {
        Missing::NotAsked => return,
        Missing::Unreachable { .. } => "unavailable",
        Missing::Empty => "empty",
        Missing::Nonsense { .. } => "invalid",
        Missing::Stale { .. } => "stale",
        Missing::Future { .. } => "future",
    };
    world.telemetry().record(Measurement::PortFailed { port, class });
}

fn asked<W: World, T>(world: &W, answer: Result<T, CloudError>, at: jiff::Timestamp) -> Observed<T> {
    match answer {
        Ok(value) => Observed::Known { value, at },
        Err(error) => {
            tracing::warn!(%error, "EC2 does not say what there is");
            world.telemetry().record(Measurement::PortFailed { port: "ec2", class: error.class() });
            Observed::Unknown(Missing::Unreachable { why: error.to_string() })
        }
    }
}
