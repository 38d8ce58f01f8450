//! Who may change something.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::SocketAddr;
use subtle::ConstantTimeEq;

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
    fn is(&self, text: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        self.0.ct_eq(&digest).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(…)")
    }
}

/// Gives the name under which a change is made, or why it is refused.
pub(super) fn permit(caller: Caller, headers: &HeaderMap, token: Option<&Token>) -> Result<String, (StatusCode, &'static str)> {
    match caller {
        Caller::Trusted { uid } => Ok(format!("uid {uid}")),
        Caller::Stranger { .. } => {
            Err((StatusCode::FORBIDDEN, "only root and the daemon's own user may make changes over the socket; use sudo"))
        }
        Caller::Tcp(address) => {
            let closed = "changes over TCP need a token, and none is configured (http.token); use the Unix socket";
            let token = token.ok_or((StatusCode::FORBIDDEN, closed))?;
            let given = bearer(headers).ok_or((StatusCode::UNAUTHORIZED, "changes over TCP need `Authorization: Bearer TOKEN`"))?;
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

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().expect("a header"));
        headers
    }

    #[test]
    fn tcp_needs_exactly_the_token() {
        let caller = Caller::Tcp(SocketAddr::from(([10, 0, 0, 1], 4711)));
        let token = Token::new("canary-7f3a").expect("it is not empty");
        let code = |headers: &HeaderMap, token| permit(caller, headers, token).map_err(|(code, _)| code.as_u16());
        assert_eq!(code(&headers("Bearer canary-7f3a"), Some(&token)), Ok("token from 10.0.0.1".to_owned()));
        assert_eq!(code(&headers("bearer canary-7f3a"), Some(&token)), Ok("token from 10.0.0.1".to_owned()));
        for wrong in ["Bearer canary-7f3", "Bearer canary-7f3aa", "Bearer ", "Basic canary-7f3a", "canary-7f3a"] {
            assert_eq!(code(&headers(wrong), Some(&token)), Err(401), "{wrong}");
        }
        assert_eq!(code(&HeaderMap::new(), Some(&token)), Err(401));
        assert_eq!(code(&headers("Bearer canary-7f3a"), None), Err(403));
        assert_eq!(code(&headers("Bearer "), None), Err(403));
    }

    #[test]
    fn the_socket_trusts_root_and_its_own_user_only() {
        assert_eq!(Caller::of_peer(0, 990), Caller::Trusted { uid: 0 });
        assert_eq!(Caller::of_peer(990, 990), Caller::Trusted { uid: 990 });
        assert_eq!(Caller::of_peer(1000, 990), Caller::Stranger { uid: 1000 });
        assert!(permit(Caller::Stranger { uid: 1000 }, &headers("Bearer x"), Token::new("x").as_ref()).is_err());
    }

    #[test]
    fn an_empty_token_is_none_and_no_token_shows_itself() {
        assert!(Token::new("").is_none());
        assert_eq!(format!("{:?}", Token::new("canary-7f3a")), "Some(Token(…))");
    }
}
