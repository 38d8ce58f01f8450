//! Who may look from afar, and who may change something.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use tokio::sync::watch;

/// Where a request came from. The server attaches it to each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A TCP connection.
    Tcp(SocketAddr),
    /// The Unix socket, from a user who may make changes: root, or the daemon's own.
    Trusted {
        /// The user.
        uid: u32,
    },
    /// The Unix socket, from any other user.
    Stranger {
        /// The user.
        uid: u32,
    },
}

impl Caller {
    /// Tells a trusted user of the socket from a stranger.
    pub(super) fn of_peer(uid: u32, own: u32) -> Self {
        if uid == 0 || uid == own { Self::Trusted { uid } } else { Self::Stranger { uid } }
    }
}

/// A bearer token. Only its digest is kept, so neither its text nor its length shows.
pub struct Token([u8; 32]);

impl Token {
    /// Takes the token's text; an empty one would let everybody in, and is none.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(Sha256::digest(text.as_bytes()).into()))
    }

    /// Compares in constant time.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        self.0.ct_eq(&digest).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(…)")
    }
}

/// The token as it is now; `None` while it cannot be had.
pub type TokenWatch = watch::Receiver<Option<Arc<Token>>>;

/// Lets everybody on this machine look, and those beyond it who show the token.
pub(super) fn admit(caller: Caller, headers: &HeaderMap, token: Option<&TokenWatch>) -> Result<(), (StatusCode, &'static str)> {
    match caller {
        Caller::Tcp(address) if !address.ip().to_canonical().is_loopback() => permit(caller, headers, token).map(drop),
        Caller::Tcp(_) | Caller::Trusted { .. } | Caller::Stranger { .. } => Ok(()),
    }
}

/// Gives the name under which a change is made, or why it is refused. `token` is `None` when none is configured.
pub(super) fn permit(caller: Caller, headers: &HeaderMap, token: Option<&TokenWatch>) -> Result<String, (StatusCode, &'static str)> {
    match caller {
        Caller::Trusted { uid } => Ok(format!("uid {uid}")),
        Caller::Stranger { .. } => {
            Err((StatusCode::FORBIDDEN, "only root and the daemon's own user may make changes over the socket; use sudo"))
        }
        Caller::Tcp(address) => {
            let closed = "over TCP this needs a token, and none is configured (http.token); use the Unix socket";
            let token = token.ok_or((StatusCode::FORBIDDEN, closed))?.borrow().clone();
            let token = token.ok_or((StatusCode::SERVICE_UNAVAILABLE, "the token cannot be had now (http.token); use the Unix socket"))?;
            let given = bearer(headers).ok_or((StatusCode::UNAUTHORIZED, "over TCP this needs `Authorization: Bearer TOKEN`"))?;
            if token.is(given) {
                Ok(format!("token from {}", address.ip()))
            } else {
                Err((StatusCode::UNAUTHORIZED, "this is not the token"))
            }
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The token as it is known; the empty one is not.
    fn known(text: &str) -> TokenWatch {
        watch::channel(Token::new(text).map(Arc::new)).1
    }

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().expect("a header"));
        headers
    }

    #[test]
    fn tcp_needs_exactly_the_token() {
        let caller = Caller::Tcp(SocketAddr::from(([10, 0, 0, 1], 4711)));
        let token = known("canary-7f3a");
        let code = |headers: &HeaderMap, token: Option<&TokenWatch>| permit(caller, headers, token).map_err(|(code, _)| code.as_u16());
        assert_eq!(code(&headers("Bearer canary-7f3a"), Some(&token)), Ok("token from 10.0.0.1".to_owned()));
        assert_eq!(code(&headers("bearer canary-7f3a"), Some(&token)), Ok("token from 10.0.0.1".to_owned()));
        for wrong in ["Bearer canary-7f3", "Bearer canary-7f3aa", "Bearer ", "Basic canary-7f3a", "canary-7f3a"] {
            assert_eq!(code(&headers(wrong), Some(&token)), Err(401), "{wrong}");
        }
        assert_eq!(code(&HeaderMap::new(), Some(&token)), Err(401));
        assert_eq!(code(&headers("Bearer canary-7f3a"), None), Err(403));
        assert_eq!(code(&headers("Bearer "), None), Err(403));
        let unknown = known("");
        assert_eq!(code(&headers("Bearer canary-7f3a"), Some(&unknown)), Err(503));
        assert_eq!(code(&headers("Bearer "), Some(&unknown)), Err(503));
    }

    #[test]
    fn from_beyond_this_machine_even_a_look_needs_the_token() {
        let token = known("canary-7f3a");
        let code = |address: &str, headers: &HeaderMap, token: Option<&TokenWatch>| {
            let caller = Caller::Tcp(SocketAddr::new(address.parse().expect("an address"), 4711));
            admit(caller, headers, token).map_err(|(code, _)| code.as_u16())
        };
        for near in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(code(near, &HeaderMap::new(), Some(&token)), Ok(()), "{near}");
            assert_eq!(code(near, &HeaderMap::new(), None), Ok(()), "{near}");
        }
        for far in ["10.0.0.1", "fd00::7", "::ffff:10.0.0.1"] {
            assert_eq!(code(far, &HeaderMap::new(), Some(&token)), Err(401), "{far}");
            assert_eq!(code(far, &headers("Bearer canary"), Some(&token)), Err(401), "{far}");
            assert_eq!(code(far, &headers("Bearer canary-7f3a"), Some(&token)), Ok(()), "{far}");
            assert_eq!(code(far, &headers("Bearer canary-7f3a"), None), Err(403), "{far}");
        }
        assert_eq!(admit(Caller::Stranger { uid: 1000 }, &HeaderMap::new(), None), Ok(()));
    }

    #[test]
    fn the_socket_trusts_root_and_its_own_user_only() {
        assert_eq!(Caller::of_peer(0, 990), Caller::Trusted { uid: 0 });
        assert_eq!(Caller::of_peer(990, 990), Caller::Trusted { uid: 990 });
        assert_eq!(Caller::of_peer(1000, 990), Caller::Stranger { uid: 1000 });
        assert!(permit(Caller::Stranger { uid: 1000 }, &headers("Bearer x"), Some(&known("x"))).is_err());
    }

    #[test]
    fn an_empty_token_is_none_and_no_token_shows_itself() {
        assert!(Token::new("").is_none());
        assert_eq!(format!("{:?}", Token::new("canary-7f3a")), "Some(Token(…))");
    }
}
