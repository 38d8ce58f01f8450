//! Answers of the AWS interface, in the two dialects: EC2's XML and JSON.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::call::Call;
use super::xml::Element;

const NAMESPACE: &str = " xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"";

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// An EC2 answer: `<ActionResponse>` with the children.
    pub fn ec2(action: &str, children: Vec<Element>) -> Self {
        let mut root = Element::with(&format!("{action}Response"), vec![Element::text("requestId", "bed")]);
        NAMESPACE.clone_into(&mut root.attributes);
        root.children.extend(children);
        Self::new(200, "text/xml;charset=UTF-8", root.document())
    }

    /// A JSON answer.
    pub fn json(body: &Value) -> Self {
        Self::new(200, "application/x-amz-json-1.1", body.to_string())
    }

    /// An error in the dialect of the call.
    pub fn error(call: &Call, code: &str, message: &str, status: u16) -> Self {
        if call.service != "ec2" && call.service != "sts" && call.service != "iam" {
            let body = json!({"__type": code, "message": message, "Message": message});
            let mut answer = Self::new(status, "application/x-amz-json-1.0", body.to_string());
            if let Ok(value) = HeaderValue::from_str(code) {
                answer.headers.insert(HeaderName::from_static("x-amzn-errortype"), value);
            }
            return answer;
        }
        let error = Element::with("Error", vec![Element::text("Code", code), Element::text("Message", message)]);
        let list = Element::with("Errors", vec![error]);
        let root = Element::with("Response", vec![list, Element::text("RequestID", "bed")]);
        Self::new(status, "text/xml;charset=UTF-8", root.document())
    }

    fn new(status: u16, content_type: &'static str, body: String) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self { status, headers, body: Bytes::from(body) }
    }

    /// Did the call succeed?
    pub fn is_success(&self) -> bool {
        self.status < 300
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The error code in the body, when it is an error.
    pub fn error_code(&self) -> Option<String> {
        if self.is_success() {
            return None;
        }
        let text = self.text();
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            let kind = value["__type"].as_str().unwrap_or("unknown").to_owned();
            return Some(kind.rsplit('#').next().unwrap_or_default().to_owned());
        }
        let code = text.split("<Code>").nth(1)?.split("</Code>").next()?;
        Some(code.to_owned())
    }

    /// The HTTP response.
    pub fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = self.headers;
        response
    }
}
