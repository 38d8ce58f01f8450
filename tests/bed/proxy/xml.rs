//! The little XML that EC2's answers need: read into a tree, change, write again.

use anyhow::{Context, Result, bail};

/// An element with its children, or with text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    pub name: String,
    /// As written, such as ` xmlns="..."`.
    pub attributes: String,
    pub text: String,
    pub children: Vec<Element>,
}

impl Element {
    /// An element with children.
    pub fn with(name: &str, children: Vec<Self>) -> Self {
        Self { name: name.to_owned(), children, ..Self::default() }
    }

    /// An element with text.
    pub fn text(name: &str, text: impl Into<String>) -> Self {
        Self { name: name.to_owned(), text: text.into(), ..Self::default() }
    }

    /// The first child of that name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text down a path of names; empty where there is none.
    pub fn at(&self, path: &[&str]) -> &str {
        let mut here = self;
        for name in path {
            match here.child(name) {
                Some(next) => here = next,
                None => return "",
            }
        }
        &here.text
    }

    /// The children of the list `name` (`<name><item/><item/></name>`).
    pub fn items(&self, name: &str) -> &[Self] {
        self.child(name).map_or(&[], |list| &list.children)
    }

    /// Sets the text of the child `name`, adding it where it is missing.
    pub fn set(&mut self, name: &str, text: &str) {
        match self.children.iter_mut().find(|child| child.name == name) {
            Some(child) => *child = Self { text: text.to_owned(), ..Self::text(name, "") },
            None => self.children.push(Self::text(name, text)),
        }
    }

    /// Reads a document.
    pub fn parse(document: &str) -> Result<Self> {
        let mut reader = Reader { rest: document };
        reader.skip_prologue();
        reader.element()
    }

    /// Writes the document.
    pub fn document(&self) -> String {
        let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        self.write(&mut text);
        text
    }

    fn write(&self, to: &mut String) {
        to.extend(["<", &self.name, &self.attributes, ">"]);
        to.push_str(&escape(&self.text));
        for child in &self.children {
            child.write(to);
        }
        to.extend(["</", &self.name, ">"]);
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn skip_prologue(&mut self) {
        self.rest = self.rest.trim_start();
        while self.rest.starts_with("<?") || self.rest.starts_with("<!") {
            self.rest = self.rest.find('>').map_or("", |end| &self.rest[end + 1..]).trim_start();
        }
    }

    fn element(&mut self) -> Result<Element> {
        let end = self.rest.find('>').context("an element without an end")?;
        let Some(head) = self.rest[..end].strip_prefix('<') else { bail!("expected an element at {:.40}", self.rest) };
        self.rest = &self.rest[end + 1..];
        let is_empty = head.ends_with('/');
        let head = head.trim_end_matches('/');
        let (name, attributes) = head.find(char::is_whitespace).map_or((head, ""), |at| (&head[..at], head[at..].trim_end()));
        let mut element = Element { name: name.to_owned(), attributes: attributes.to_owned(), ..Element::default() };
        if is_empty {
            return Ok(element);
        }
        loop {
            let at = self.rest.find('<').with_context(|| format!("<{}> is not closed", element.name))?;
            let text = self.rest[..at].trim();
            if !text.is_empty() {
                element.text.push_str(&unescape(text));
            }
            self.rest = &self.rest[at..];
            if let Some(after) = self.rest.strip_prefix("</") {
                self.rest = after.find('>').map_or("", |end| &after[end + 1..]);
                return Ok(element);
            }
            element.children.push(self.element()?);
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn unescape(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'");
    text.replace("&apos;", "'").replace("&amp;", "&")
}
