//! Single steps of a retirement, against what people and faults do in between.

use super::super::driver::{Context, Next, StepError};
use super::super::lease::Fence;
use super::super::retire::advance;
use super::*;
use crate::model::Retire;
use crate::model::operation::RetireState;
use crate::model::plan::{RetireOrder, RetireReason};

struct Scene {
    context: Context<Small>,
    _leads: watch::Sender<Leadership>,
}

impl Scene {
    /// Three nodes; the first is cordoned by the operation and runs the pods of that name.
    fn new(pods: &[&str]) -> Self {
        let shared = shared(3);
        {
            let mut truth = shared.truth();
            let node = truth.view.nodes.get_mut("s0").expect("the node");
            (node.cordoned, node.cordoned_by) = (true, Some("op".into()));
            truth.view.pods = pods.iter().map(|name| Arc::new(running(name))).collect();
        }
        let world = Arc::new(Small::new(&shared));
        let grant = Grant { owner: "one".into(), epoch: Epoch(1) };
        let (leads, leadership) =
            watch::channel(Leadership::Leader { grant, valid_until: Monotonic(shared.begin.elapsed() + Duration::from_hours(1)) });
        let context = Context { world, fence: Fence::new(leadership), settings: Arc::new(settings("one")) };
        Self { context, _leads: leads }
    }

    fn truth(&self) -> MutexGuard<'_, Truth> {
        self.context.world.shared.truth()
    }

    async fn step(&self, reason: RetireReason, state: RetireState) -> Result<Option<RetireState>, StepError> {
        let now = self.context.world.shared.now();
        let order = RetireOrder {
            pool: "workers".into(),
            instance: Some("i-s0".into()),
            node: (reason != RetireReason::Leaked).then(|| NodeRef { name: "s0".into(), uid: "uid-s0".into() }),
            zone: "a".into(),
            market: Market::OnDemand,
            reason,
            on_timeout: OnDrainTimeout::RollBack,
        };
        let retire = Retire { id: "op".into(), epoch: Epoch(1), created: now, updated: now, order, state };
        Ok(match advance(&self.context, &retire, Duration::ZERO).await? {
            Next::Wait => None,
            Next::State(next, _) => match *next {
                Operation::Retire(retire) => Some(retire.state),
                Operation::Launch(launch) => panic!("{launch:?}"),
            },
        })
    }

    fn draining(&self) -> RetireState {
        RetireState::Draining { since: self.context.world.shared.now() }
    }
}

fn running(name: &str) -> Pod {
    Pod {
        key: PodKey { namespace: "default".into(), name: name.into() },
        uid: format!("uid-{name}"),
        owner: crate::model::pod::Owner::Controller,
        phase: PodPhase::Running,
        node: Some("s0".into()),
        ..Pod::default()
    }
}

fn economy() -> RetireReason {
    RetireReason::Underused { evidence: "cpu 1 %".into() }
}

fn interruption() -> RetireReason {
    RetireReason::SpotInterruption { deadline: "2026-03-02T12:02:00Z".parse().expect("a timestamp") }
}

fn is_rolling_back(state: Option<&RetireState>, why: &str) -> bool {
    matches!(state, Some(RetireState::RollingBack { reason } | RetireState::RolledBack { reason }) if reason.contains(why))
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_cannot_be_evicted_does_not_keep_the_others() {
    for reason in [economy(), interruption()] {
        let scene = Scene::new(&["a", "b", "c"]);
        scene.truth().not_evictable.insert("a".into());
        let outcome = scene.step(reason, scene.draining()).await;
        assert!(matches!(outcome, Err(StepError::Cluster(ClusterError::Denied { .. }))), "{outcome:?}");
        let evicted: Vec<String> = scene.truth().evicted.iter().map(|key| key.name.clone()).collect();
        assert_eq!(evicted, ["b", "c"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_put_back_into_service_stays() {
    for state in [RetireState::Drained { forced: 0 }, Scene::new(&[]).draining()] {
        let scene = Scene::new(&[]);
        scene.truth().view.nodes.get_mut("s0").expect("the node").cordoned = false;
        let next = scene.step(economy(), state).await.expect("a state");
        assert!(is_rolling_back(next.as_ref(), "back into service"), "{next:?}");
        assert!(scene.truth().terminated.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_node_goes_although_it_is_put_back_into_service() {
    let scene = Scene::new(&["a"]);
    scene.truth().view.nodes.get_mut("s0").expect("the node").cordoned = false;
    assert_eq!(scene.step(interruption(), scene.draining()).await.expect("it waits"), None);
    assert_eq!(scene.truth().evicted.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_instance_whose_node_has_vanished_is_not_terminated_for_economy() {
    for state in [RetireState::Drained { forced: 0 }, Scene::new(&[]).draining()] {
        for successor in [false, true] {
            let scene = Scene::new(&["a"]);
            let node = scene.truth().view.nodes.remove("s0").expect("the node");
            if successor {
                let other = Node { uid: "uid-other".into(), ..node };
                scene.truth().view.nodes.insert("s0".into(), other);
            }
            let next = scene.step(economy(), state.clone()).await.expect("a state");
            assert!(is_rolling_back(next.as_ref(), "the node is gone"), "{next:?}");
            assert!(scene.truth().terminated.is_empty() && scene.truth().evicted.is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_termination_that_the_journal_missed_is_not_taken_back() {
    let scene = Scene::new(&[]);
    scene.truth().view.nodes.remove("s0");
    scene.truth().instances.retain(|instance| instance.id.as_str() != "i-s0");
    let next = scene.step(economy(), RetireState::Drained { forced: 0 }).await.expect("a state");
    assert_eq!(next, Some(RetireState::Terminated));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_a_node_is_no_leak() {
    let scene = Scene::new(&[]);
    let next = scene.step(RetireReason::Leaked, RetireState::Journalled).await.expect("a state");
    assert!(is_rolling_back(next.as_ref(), "the instance is the node s0"), "{next:?}");
    scene.truth().view.nodes.remove("s0");
    let next = scene.step(RetireReason::Leaked, RetireState::Journalled).await.expect("a state");
    assert_eq!(next, Some(RetireState::Drained { forced: 0 }));
}
