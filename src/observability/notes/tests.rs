use super::super::fakes::{Outside, Paused, line, unavailable};
use super::*;
use crate::model::PodKey;
use crate::model::happening::WaitingPod;
use crate::ports::OutletError;
use jiff::Timestamp;

fn waiting(names: impl IntoIterator<Item = String>, why: &str) -> Arc<Happening> {
    let pod = |name: String| WaitingPod { pod: PodKey { namespace: "shop".into(), name }, why: why.into() };
    Arc::new(Happening { at: Timestamp::UNIX_EPOCH, what: What::Waiting { pods: names.into_iter().map(pod).collect() } })
}

fn one(why: &str) -> Arc<Happening> {
    waiting(["web-0".to_owned()], why)
}

type Scene = (Arc<Outside<Note>>, broadcast::Sender<Arc<Happening>>, super::super::fakes::Counted, watch::Sender<bool>);

fn scene(script: Vec<OutletError>) -> Scene {
    let board = Outside::new(script);
    let (tell, happenings) = broadcast::channel(64);
    let (stop, stopped) = watch::channel(false);
    let (line, counted, _) = line("events");
    tokio::spawn(keep(Arc::clone(&board), Paused::new(), line, happenings, stopped));
    (board, tell, counted, stop)
}

#[tokio::test(start_paused = true)]
async fn the_same_words_are_written_once_in_a_while_and_others_at_once() {
    let (board, tell, _, _stop) = scene(Vec::new());
    let cooling = |minute: u32| format!("pool workers: cooling down until 2026-03-17T12:{minute}:00Z");
    for why in
        ["pool workers: at the maximum of 10", "pool workers: at the maximum of 9", &cooling(10), &cooling(12), "the fleet is paused"]
    {
        tell.send(one(why)).expect("it listens");
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    assert_eq!(board.take().len(), 3);
    tokio::time::sleep(SILENCE).await;
    tell.send(one("the fleet is paused")).expect("it listens");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let again = board.take();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].1.text, "pod didn't trigger scale-up: the fleet is paused");
}

#[tokio::test(start_paused = true)]
async fn what_fails_in_passing_is_written_later_and_what_is_old_or_refused_is_counted() {
    let (board, tell, counted, _stop) = scene(vec![unavailable(), unavailable()]);
    tell.send(one("a")).expect("it listens");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!((board.take().len(), counted.told("dropped")), (1, 0));

    let refusal = OutletError::Unacceptable { outlet: "events", why: "no".into() };
    let (board, tell, counted, _stop) = scene(vec![refusal]);
    tell.send(one("a")).expect("it listens");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!((board.take().len(), counted.told("dropped")), (0, 1));

    let (board, tell, counted, _stop) = scene(std::iter::repeat_with(unavailable).take(20).collect());
    tell.send(one("a")).expect("it listens");
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!((board.take().len(), counted.told("dropped")), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_about_something_gone_or_is_refused_makes_way_at_once_and_is_counted() {
    for refusal in [OutletError::Gone { outlet: "events" }, OutletError::Unacceptable { outlet: "events", why: "no".into() }] {
        let (board, tell, counted, _stop) = scene(vec![refusal; 50]);
        tell.send(waiting((0..51).map(|number| format!("web-{number}")), "x")).expect("it listens");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!((board.take().len(), counted.told("dropped"), counted.told("sent")), (1, 50, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_bounded_and_written_at_a_pace() {
    let (board, tell, counted, _stop) = scene(Vec::new());
    for burst in 0..20 {
        tell.send(waiting((0..40).map(|number| format!("web-{burst}-{number}")), "x")).expect("it listens");
    }
    tokio::time::sleep(Duration::from_mins(1)).await;
    let written = board.take();
    assert_eq!(written.len() + usize::try_from(counted.told("dropped")).expect("few"), 800);
    assert!((WAITING..WAITING + 40).contains(&written.len()), "{}", written.len());
    assert!(written.last().is_some_and(|(at, _)| *at >= 24), "{:?}", written.last());
}

#[test]
fn a_note_keeps_the_servers_limit_between_two_characters() {
    assert_eq!(shortened(&"ü".repeat(600)).len(), LONGEST);
    assert_eq!(shortened(&format!("x{}", "ü".repeat(600))).len(), LONGEST - 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_holds_nobody_up_at_the_end() {
    let board = Arc::new(Outside { takes: Duration::from_hours(1), ..Arc::into_inner(Outside::new([])).expect("it is ours") });
    let (tell, happenings) = broadcast::channel(64);
    let (stop, stopped) = watch::channel(false);
    let (line, counted, _) = line("events");
    let task = tokio::spawn(keep(board, Paused::new(), line, happenings, stopped));
    tell.send(one("a")).expect("it listens");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let start = Instant::now();
    stop.send_replace(true);
    task.await.expect("it ends");
    assert_eq!((start.elapsed(), counted.told("dropped")), (super::super::outlets::LAST_WORDS, 1));
}

#[tokio::test(start_paused = true)]
async fn what_waits_at_the_end_is_written_while_that_works_and_counted_otherwise() {
    for (script, written) in [(Vec::new(), 3), (vec![unavailable()], 0)] {
        let (board, tell, counted, stop) = scene(script);
        tell.send(waiting((0..3).map(|number| format!("web-{number}")), "x")).expect("it listens");
        // It hears of both at once.
        stop.send_replace(true);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!((board.take().len(), counted.told("dropped")), (written, 3 - u64::try_from(written).expect("few")));
    }
}
