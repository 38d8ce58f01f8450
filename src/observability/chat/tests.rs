use super::super::fakes::{Counted, Outside, Paused, line, unavailable};
use super::super::outlets::LAST_WORDS;
use super::*;
use crate::control::status::{Outlets, Role};
use crate::model::What;
use crate::model::ids::Epoch;
use crate::model::snapshot::Pause;
use crate::ports::OutletError;

struct Scene {
    chat: Arc<Outside<Value>>,
    tell: broadcast::Sender<Arc<Happening>>,
    ticks: mpsc::Sender<()>,
    stop: watch::Sender<bool>,
    counted: Counted,
    states: watch::Receiver<Outlets>,
    _status: watch::Sender<Arc<Status>>,
    task: tokio::task::JoinHandle<()>,
}

impl Scene {
    fn new(role: Role, chat: Arc<Outside<Value>>) -> Self {
        let (tell, happenings) = broadcast::channel(1024);
        let status = Status { role, ..Status::first("prod", "me", Timestamp::UNIX_EPOCH) };
        let (status, shown) = watch::channel(Arc::new(status));
        let (ticks, ticking) = mpsc::channel(1);
        let (stop, stopped) = watch::channel(false);
        let (line, counted, seen) = line("slack");
        let sources = Sources { happenings, status: shown, ticks: ticking, stop: stopped };
        let when = |pattern| Recurrence::new(pattern, "UTC").ok();
        let config = SlackConfig { webhook: None, daily_report: when("0 8 * * *"), weekly_report: when("0 8 * * 1") };
        let task = tokio::spawn(keep("prod".into(), config, Arc::clone(&chat), Paused::new(), line, sources));
        Self { chat, tell, ticks, stop, counted, states: seen, _status: status, task }
    }

    fn leading(script: impl IntoIterator<Item = OutletError>) -> Self {
        Self::new(Role::Leader { epoch: Epoch(1) }, Outside::new(script))
    }

    fn tell(&self, number: usize) {
        let pause = Pause { since: Timestamp::UNIX_EPOCH, by: format!("operator-{number};"), reason: "x".into() };
        self.tell.send(Arc::new(Happening { at: Timestamp::UNIX_EPOCH, what: What::Paused { pause } })).expect("it listens");
    }

    /// Gives the seconds at which messages have arrived, and which happenings each has, in their order.
    fn arrived(&self) -> Vec<(u64, Vec<usize>)> {
        let numbers = |message: &Value| {
            let text = message["blocks"].to_string();
            let found = text.split("operator-").skip(1).filter_map(|rest| rest.split(';').next()?.parse().ok());
            found.collect::<Vec<usize>>()
        };
        self.chat.take().into_iter().map(|(at, message)| (at, numbers(&message))).collect()
    }
}

async fn wait(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn what_happens_within_seconds_is_one_message_and_what_comes_later_another() {
    let scene = Scene::leading([]);
    wait(10).await;
    scene.tell(0);
    wait(2).await;
    scene.tell(1);
    wait(60).await;
    scene.tell(2);
    wait(60).await;
    assert_eq!(scene.arrived(), [(13, vec![0, 1]), (75, vec![2])]);
    assert_eq!((scene.counted.told("sent"), scene.counted.told("dropped")), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn after_a_burst_messages_leave_once_a_second() {
    let scene = Scene::leading([]);
    (0..WAITING).for_each(|number| scene.tell(number));
    wait(60).await;
    let arrived = scene.arrived();
    let seconds: Vec<u64> = arrived.iter().map(|(at, _)| *at).collect();
    assert_eq!(seconds, [0, 0, 0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(arrived.into_iter().flat_map(|(_, numbers)| numbers).collect::<Vec<_>>(), (0..WAITING).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_patience_is_given_it_and_the_order_stays() {
    let scene = Scene::leading([OutletError::Throttled { outlet: "slack", pause: Some(Duration::from_secs(30)) }]);
    scene.tell(0);
    wait(20).await;
    scene.tell(1);
    assert!(scene.states.borrow()["slack"].is_err());
    wait(60).await;
    assert_eq!(scene.arrived(), [(33, vec![0, 1])]);
    assert_eq!(scene.states.borrow()["slack"], Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_fault_is_tried_again_with_growing_pauses_and_loses_nothing() {
    let scene = Scene::leading(std::iter::repeat_with(unavailable).take(12));
    scene.tell(0);
    wait(30 * 60).await;
    let arrived = scene.arrived();
    assert_eq!(arrived.len(), 1);
    assert_eq!(arrived[0].1, [0]);
    assert!((300..900).contains(&arrived[0].0), "{arrived:?}");
    assert_eq!(scene.counted.told("dropped"), 0);
}

#[tokio::test(start_paused = true)]
async fn while_nothing_can_be_sent_the_oldest_go_and_the_next_message_counts_them() {
    let scene = Scene::leading(std::iter::repeat_with(unavailable).take(5));
    for number in 0..WAITING + 7 {
        scene.tell(number);
        tokio::task::yield_now().await;
    }
    wait(600).await;
    let messages = scene.chat.take();
    assert!(messages[0].1.to_string().contains("7 earlier messages could not be sent"), "{}", messages[0].1);
    assert!(!messages[1].1.to_string().contains("earlier messages"));
    assert_eq!(scene.counted.told("dropped"), 7);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_never_accepted_makes_way_for_the_next() {
    let scene = Scene::leading([OutletError::Unacceptable { outlet: "slack", why: "invalid_blocks".into() }]);
    scene.tell(0);
    wait(10).await;
    scene.tell(1);
    wait(60).await;
    assert_eq!(scene.arrived().into_iter().map(|(_, numbers)| numbers).collect::<Vec<_>>(), [vec![1]]);
    assert_eq!(scene.counted.told("dropped"), 1);
}

#[tokio::test(start_paused = true)]
async fn reports_come_when_they_are_due_and_from_the_leader_alone() {
    const HOUR: u64 = 3600;
    // The clock begins on a Thursday.
    let (leader, standby) = (Scene::leading([]), Scene::new(Role::Standby { leader: None }, Outside::new([])));
    for _ in 0..5 * 24 * 6 {
        wait(HOUR / 6).await;
        for scene in [&leader, &standby] {
            scene.ticks.send(()).await.expect("it listens");
        }
    }
    let (hours, headers): (Vec<u64>, Vec<String>) = leader
        .chat
        .take()
        .iter()
        .map(|(at, message)| (at / HOUR, message["blocks"][0]["text"]["text"].as_str().expect("a header").to_owned()))
        .unzip();
    assert_eq!(hours, [8, 32, 56, 80, 104, 104]);
    assert_eq!((headers[0].as_str(), headers[5].as_str()), ("Daily report: prod", "Weekly recommendations: prod"));
    assert_eq!(standby.chat.take(), []);
}

#[test]
fn a_clock_that_is_set_makes_a_report_due_once() {
    let daily_report = Recurrence::new("0 8 * * *", "UTC").ok();
    let at = |text: &str| -> Timestamp { text.parse().expect("a time") };
    let mut calendar =
        Calendar { config: SlackConfig { webhook: None, daily_report, weekly_report: None }, looked: at("2026-03-01T07:59:50Z") };
    for (now, due) in [
        ("2026-03-01T08:00:01Z", true),
        ("2026-03-01T07:59:58Z", false),
        ("2026-03-01T08:00:08Z", false),
        // Set forward by three days, and back.
        ("2026-03-04T09:00:00Z", true),
        ("2026-03-01T09:00:00Z", false),
        ("2026-03-02T08:00:00Z", true),
    ] {
        assert_eq!(calendar.due(at(now)), if due { vec![Report::Daily] } else { Vec::new() }, "{now}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_words_are_sent_at_the_end_and_a_chat_that_hangs_holds_nobody_up() {
    let scene = Scene::leading([]);
    scene.tell(0);
    scene.stop.send_replace(true);
    scene.task.await.expect("it ends");
    assert_eq!(scene.chat.take().len(), 1);

    for asked in [0, 5] {
        let chat = Arc::new(Outside { takes: Duration::from_hours(1), ..Arc::into_inner(Outside::new([])).expect("it is ours") });
        let scene = Scene::new(Role::Leader { epoch: Epoch(1) }, chat);
        scene.tell(0);
        // After five seconds the message is under way, and another one waits behind it.
        wait(asked).await;
        scene.tell(1);
        let start = Instant::now();
        scene.stop.send_replace(true);
        scene.task.await.expect("it ends");
        assert_eq!(start.elapsed(), LAST_WORDS);
        assert_eq!(scene.counted.told("dropped"), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_message_tells_what_was_lost_with_a_refused_one_and_what_came_too_fast() {
    let scene = Scene::leading([OutletError::Unacceptable { outlet: "slack", why: "no".into() }]);
    (0..3).for_each(|number| scene.tell(number));
    wait(10).await;
    assert_eq!(scene.chat.take(), []);
    // It hears of the end before any of these: four more than the channel holds.
    (0..1028).for_each(|number| scene.tell(number));
    scene.stop.send_replace(true);
    scene.task.await.expect("it ends");
    let messages = scene.chat.take();
    let lost = 3 + 4 + 1024 - u64::try_from(WAITING).expect("few");
    assert!(messages[0].1.to_string().contains(&lost.to_string()), "{lost}: {}", messages[0].1);
}
