//! Accepts connections, within limits that a flood or a slow client cannot stretch.

use super::access::Caller;
use super::{Surface, router};
use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;
use tracing::{debug, warn};

/// What a client may take. The Unix socket has connections of its own, so that a flood on
/// TCP does not shut an operator out.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body: usize,
    /// Bytes of a request's head.
    pub head: usize,
    /// From the end of the last answer to the end of the next request's head.
    pub head_time: Duration,
    /// From a request's head to its answer.
    pub request: Duration,
    /// How much later the client must have taken the answer and asked again, or the connection ends.
    pub write: Duration,
    /// Connections at once, of each listener.
    pub connections: usize,
    /// An older connection is closed after the answer in hand.
    pub connection_life: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 16 << 10,
            head: 16 << 10,
            head_time: Duration::from_secs(5),
            request: Duration::from_secs(10),
            write: Duration::from_secs(10),
            connections: 64,
            connection_life: Duration::from_mins(5),
        }
    }
}

/// How long an answer in hand may take once the daemon is to end.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Why the Unix socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process answers there.
    #[error("another process listens on {}: is the daemon running already?", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else lies there, and is left alone.
    #[error("{} is there and is no socket; remove it or set http.socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("the socket {} cannot be opened", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

/// The Unix socket of changes. Its file goes when it does.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    own_uid: u32,
}

impl AdminSocket {
    /// Opens the socket with mode 0660, in the place of one that nobody listens on any more.
    ///
    /// # Errors
    /// When the path is taken or the system refuses.
    pub async fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        clear(path).await?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
        // The file was made by this process, so its owner is the user that it runs as.
        let own_uid = fs::metadata(path).map_err(failed)?.uid();
        Ok(Self { listener, path: path.to_owned(), own_uid })
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            debug!(path = %self.path.display(), %error, "the socket's file stays");
        }
    }
}

/// Removes the file of a socket on which nobody listens.
async fn clear(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket { path: path.to_owned() }),
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(SocketError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

/// Answers on both listeners until `stop` is set or its sender is gone. Answers in hand are finished.
pub async fn serve(surface: Surface, limits: Limits, tcp: TcpListener, admin: Option<AdminSocket>, stop: watch::Receiver<bool>) {
    let shared = Arc::new(Shared { router: router(surface, &limits), limits, stop: stop.clone() });
    let change = async {
        if let Some(admin) = &admin {
            accept(Arc::clone(&shared), admin).await;
        }
    };
    tokio::join!(accept(Arc::clone(&shared), &tcp), change);
}

/// Where connections come in, each with who is at the other end.
trait Door: Sync {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, Caller)>> + Send;
}

impl Door for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, Caller)> {
        let (stream, address) = self.accept().await?;
        Ok((stream, Caller::Tcp(address)))
    }
}

impl Door for AdminSocket {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<(UnixStream, Caller)> {
        let (stream, _) = self.listener.accept().await?;
        let uid = stream.peer_cred()?.uid();
        Ok((stream, Caller::of_peer(uid, self.own_uid)))
    }
}

struct Shared {
    router: Router,
    limits: Limits,
    stop: watch::Receiver<bool>,
}

async fn accept(shared: Arc<Shared>, door: &impl Door) {
    let places = Arc::new(Semaphore::new(shared.limits.connections));
    let mut open = JoinSet::new();
    let mut stop = shared.stop.clone();
    loop {
        while open.try_join_next().is_some() {}
        let place = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, door.next().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            both = place => both,
        };
        match accepted {
            Ok((stream, caller)) => {
                let connection = connection(Arc::clone(&shared), stream, caller);
                open.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: they come back as connections end.
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    while open.join_next().await.is_some() {}
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone cannot ask for the end any more: that is the end.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn connection<S>(shared: Arc<Shared>, stream: S, caller: Caller) -> impl Future<Output = ()> + Send
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = shared.router.clone();
    let (began, exchanges) = watch::channel(());
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        began.send_replace(());
        request.extensions_mut().insert(caller);
        router.clone().oneshot(request.map(Body::new))
    });
    async move {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(shared.limits.head_time).max_buf_size(shared.limits.head);
        let serving = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(serving);
        let mut stop = shared.stop.clone();
        let grace = async {
            tokio::select! {
                () = stopped(&mut stop) => shared.limits.request.min(STOP_GRACE),
                () = tokio::time::sleep(shared.limits.connection_life) => shared.limits.request,
            }
        };
        let outcome = tokio::select! {
            outcome = serving.as_mut() => outcome,
            () = overdue(exchanges, shared.limits.request + shared.limits.write) => {
                debug!(?caller, "a client does not take its answer");
                return;
            }
            grace = grace => {
                serving.as_mut().graceful_shutdown();
                // A client that does not take its answer keeps nobody waiting.
                match tokio::time::timeout(grace, serving).await {
                    Ok(outcome) => outcome,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = outcome {
            debug!(?caller, %error, "a connection ended badly");
        }
    }
}

/// Waits until an exchange has lasted longer than the limit. hyper does not tell when an answer
/// has been taken, and ends an idle connection sooner by itself; so the next request is what counts.
async fn overdue(mut exchanges: watch::Receiver<()>, limit: Duration) {
    while let Ok(Ok(())) = tokio::time::timeout(limit, exchanges.changed()).await {}
}
