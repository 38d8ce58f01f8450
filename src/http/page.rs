//! `GET /`: the page for people. It holds no data and loads nothing but the JSON of the API.
//!
//! One document, so that it works where no network is. Its policy names style and script by their digests: markup that
//! should ever come into it from elsewhere does not run. From beyond this machine it asks for the token, as the API does.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::response::IntoResponse;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

const FRAME: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The document.
static PAGE: LazyLock<String> = LazyLock::new(|| FRAME.replace("{{style}}", STYLE).replace("{{script}}", SCRIPT));

/// What the browser may do with it.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let digest = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        digest(SCRIPT),
        digest(STYLE)
    )
});

pub(super) async fn show() -> impl IntoResponse {
    let headers: [(HeaderName, &'static str); 6] = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, PAGE.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives what stands between two marks that come once.
    fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
        assert_eq!((text.matches(begin).count(), text.matches(end).count()), (1, 1), "{begin} and {end} come once");
        let (_, rest) = text.split_once(begin).expect("it begins");
        rest.split_once(end).expect("it ends").0
    }

    #[test]
    fn the_policy_lets_exactly_this_style_and_script_run() {
        for (directive, begin, end) in [("script-src", "<script>", "</script>"), ("style-src", "<style>", "</style>")] {
            let digest = STANDARD.encode(Sha256::digest(between(&PAGE, begin, end).as_bytes()));
            assert!(POLICY.contains(&format!("{directive} 'sha256-{digest}';")), "{}", *POLICY);
        }
        assert!(POLICY.starts_with("default-src 'none';") && !POLICY.contains("unsafe"), "{}", *POLICY);
    }

    #[test]
    fn the_page_is_whole_and_asks_nobody_else() {
        assert!(!PAGE.contains("{{style}}") && !PAGE.contains("{{script}}"), "a placeholder is left");
        // The namespace of SVG is a name and no address that is asked.
        let addresses = PAGE.replace("http://www.w3.org/2000/svg", "");
        for elsewhere in ["http://", "https://", "@import", " src=", "url("] {
            assert!(!addresses.contains(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn what_the_daemon_says_is_never_taken_for_markup() {
        for way in [
            "innerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "DOMParser",
            "srcdoc",
            "createContextualFragment",
        ] {
            assert!(!SCRIPT.contains(way), "{way}");
        }
        // An attribute whose value is run; listeners are added by name instead.
        let handlers = FRAME.split_whitespace().filter(|word| word.starts_with("on") && word.contains('='));
        assert_eq!(handlers.collect::<Vec<_>>(), Vec::<&str>::new());
        assert!(!FRAME.contains("style=") && !FRAME.contains("javascript:"));
    }
}
