//! Keeps one watch for each kind of objects going.

use super::errors::{refusal, words};
use super::store::Hub;
use super::watched::{Source, Watched};
use futures::{Stream, StreamExt};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long the API server keeps a watch open before it is resumed.
const WATCH_SECONDS: u32 = 60;

/// After this long without a change what is known of a kind is listed anew.
///
/// The watcher swallows the bookmarks by which a quiet watch would show that it is alive, and resumes
/// in silence. So nothing but a list tells a kind without changes from one whose changes do not come.
pub(super) const QUIET: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 15);

/// Objects in one page of a list: enough for speed, little enough for memory.
const PAGE: u32 = 100;

/// The first pause after a failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// A watch that has delivered for this long starts again from the first pause.
const SETTLED: Duration = Duration::from_secs(30);

/// Watches all objects of a kind for as long as the task lives.
pub(super) async fn keep<K: Watched>(client: Client, hub: Arc<Hub>, deadline: Duration) {
    let mut config = watcher::Config::default().page_size(PAGE).timeout(WATCH_SECONDS);
    if let Some(fields) = K::FIELDS {
        config = config.fields(fields);
    }
    let _told = Panics { hub: &hub, source: K::SOURCE };
    keep_with(|| watcher(Api::<K>::all(client.clone()), config.clone()), &hub, deadline).await;
}

/// Tells when the task that keeps a watch panics: what it has seen then grows old without a word.
struct Panics<'a> {
    hub: &'a Hub,
    source: Source,
}

impl Drop for Panics<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.hub.failed(self.source, "its task has panicked; restart the daemon and report the defect");
        }
    }
}

/// Opens a watch, follows it until it fails or falls quiet, and opens it again, after a failure with a pause.
///
/// A watch that has failed is begun anew with a list. The watcher could also resume it, but says
/// nothing when it has, so that a quiet kind would pass for unknown until its next change.
async fn keep_with<K: Watched, S>(open: impl Fn() -> S, hub: &Hub, deadline: Duration)
where
    S: Stream<Item = watcher::Result<Event<K>>>,
{
    let mut pause = Pause::new(K::SOURCE);
    loop {
        let opened = Instant::now();
        let Err(why) = follow(open(), hub, deadline).await else {
            pause = Pause::new(K::SOURCE);
            continue;
        };
        hub.failed(K::SOURCE, &why);
        if opened.elapsed() >= SETTLED {
            pause = Pause::new(K::SOURCE);
        }
        sleep(pause.next()).await;
    }
}

/// Follows a watch until it falls quiet, or fails, and says why.
async fn follow<K: Watched>(stream: impl Stream<Item = watcher::Result<Event<K>>>, hub: &Hub, deadline: Duration) -> Result<(), String> {
    let mut stream = pin!(stream);
    let mut listing = true;
    loop {
        // While it lists, each step is at most one request. Later a step lasts until the next change.
        let step = timeout(if listing { deadline } else { QUIET }, stream.next()).await;
        match step {
            Err(_) if listing => return Err(format!("no answer within {deadline:?}")),
            Err(_) => return Ok(()),
            Ok(None) => return Err("it has ended".to_owned()),
            Ok(Some(Err(error))) => return Err(reason(&error)),
            Ok(Some(Ok(event))) => {
                listing = match event {
                    Event::Init | Event::InitApply(_) => true,
                    Event::InitDone | Event::Apply(_) | Event::Delete(_) => false,
                };
                hub.apply(event);
            }
        }
    }
}

fn reason(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            words(error)
        }
        watcher::Error::WatchError(status) => refusal(status),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

/// Doubling pauses. Each watch has its own phase, so that they do not all knock at once.
struct Pause {
    next: Duration,
    longest: Duration,
}

impl Pause {
    fn new(source: Source) -> Self {
        let phase = |duration: Duration| duration + duration * (source as u32) / 16;
        Self { next: phase(PAUSES.0), longest: phase(PAUSES.1) }
    }

    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = self.longest.min(pause * 2);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::Health;
    use super::super::wire::StorageClass;
    use super::*;
    use futures::stream;
    use std::sync::Mutex;

    type Steps = Vec<watcher::Result<Event<StorageClass>>>;

    fn list() -> Steps {
        vec![Ok(Event::Init), Ok(Event::InitApply(StorageClass::default())), Ok(Event::InitDone)]
    }

    /// Plays one script after the other; after its script a watch hangs. Gives the moments of opening.
    async fn play(scripts: Vec<Steps>, hub: &Hub, time: Duration) -> Vec<Duration> {
        let start = Instant::now();
        let opened = Mutex::new(Vec::new());
        let scripts = Mutex::new(scripts.into_iter());
        let open = || {
            opened.lock().expect("no panic").push(start.elapsed());
            let script = scripts.lock().expect("no panic").next().unwrap_or_default();
            stream::iter(script).chain(stream::pending())
        };
        let _ = timeout(time, keep_with(open, hub, Duration::from_secs(10))).await;
        opened.into_inner().expect("no panic")
    }

    fn is_failing(hub: &Hub) -> bool {
        matches!(hub.health(), Health::Failing(_))
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_watch_begins_anew_with_a_list() {
        let hub = Hub::default();
        let mut broken = list();
        broken.push(Err(watcher::Error::NoResourceVersion));
        let opened = play(vec![broken, list()], &hub, Duration::from_mins(1)).await;
        assert_eq!(opened.len(), 2);
        assert!(!is_failing(&hub));
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_bound_while_it_keeps_failing() {
        let hub = Hub::default();
        let broken = || vec![Ok(Event::Init), Ok(Event::InitDone), Err(watcher::Error::NoResourceVersion)];
        let opened = play((0..40).map(|_| broken()).collect(), &hub, Duration::from_mins(1)).await;
        assert!((8..20).contains(&opened.len()), "{opened:?}");
        let gaps: Vec<_> = opened.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
        assert!(gaps.is_sorted() && gaps.last() <= Some(&Duration::from_secs(7)), "{gaps:?}");
        assert!(is_failing(&hub));
    }

    #[tokio::test]
    async fn a_watch_that_panics_fails_the_view() {
        let hub = Arc::new(Hub::default());
        let task = tokio::spawn({
            let hub = Arc::clone(&hub);
            async move {
                let _told = Panics { hub: &hub, source: Source::Nodes };
                tokio::task::yield_now().await;
                panic!("a defect");
            }
        });
        assert!(task.await.is_err());
        assert!(is_failing(&hub));
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_does_not_go_on_fails_and_a_quiet_watch_does_not() {
        let hub = Hub::default();
        let stuck = play(vec![vec![Ok(Event::Init)]], &hub, Duration::from_secs(11)).await;
        assert_eq!(stuck.len(), 2);
        assert!(is_failing(&hub));
        let hub = Hub::default();
        let quiet = play(vec![list()], &hub, Duration::from_mins(1)).await;
        assert_eq!(quiet.len(), 1);
        assert!(!is_failing(&hub));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_kind_is_listed_anew_and_fails_when_it_cannot_be() {
        let hub = Hub::default();
        let opened = play((0..100).map(|_| list()).collect(), &hub, Duration::from_hours(1)).await;
        assert_eq!(opened.get(..3), Some([Duration::ZERO, QUIET, QUIET * 2].as_slice()));
        assert!(!is_failing(&hub));
        let hub = Hub::default();
        play(vec![list()], &hub, QUIET + Duration::from_secs(11)).await;
        assert!(is_failing(&hub), "the second list did not come");
    }
}
