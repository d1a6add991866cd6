//! One entry of the list: a request as data and the answer it must get.
//!
//! Text anywhere in a request may name what earlier answers gave, as `${name}`.

use std::ops::Range;

use rackhand_schema::ErrorCode;
use serde_json::Value;

#[derive(Clone)]
pub enum Body {
    None,
    Json(Value),
    /// Bytes under a media type.
    Raw(&'static str, Vec<u8>),
}

/// Where a value to be remembered stands.
#[derive(Clone)]
pub enum Place {
    /// JSON pointer into the body.
    Body(&'static str),
    /// A cookie that is set, kept as `name=value`.
    Cookie(&'static str),
}

#[derive(Clone)]
pub enum Act {
    Request(Box<Request>),
    /// SQL as the database's owner: what no request can arrange.
    Database(&'static str),
    /// Signs an executor's nonce with its key and remembers the signature.
    Sign {
        executor: &'static str,
        key: u8,
        session: &'static str,
    },
}

#[derive(Clone)]
pub struct Request {
    pub method: &'static str,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
    pub expect: Expect,
    pub keep: Vec<(&'static str, Place)>,
    /// The answer is a stream, of which so many events are read.
    pub events: Option<usize>,
    /// Sent while this one is held open.
    pub meanwhile: Option<Box<Step>>,
    /// Milliseconds the answer may take.
    pub held: Option<Range<u64>>,
    /// Numbers of the body depend on when it is asked.
    pub numbers_vary: bool,
}

#[derive(Clone, Copy)]
pub enum Expect {
    Status(u16),
    Refused(ErrorCode),
}

impl Expect {
    pub const fn status(self) -> u16 {
        match self {
            Self::Status(status) => status,
            Self::Refused(code) => code.status(),
        }
    }
}

#[derive(Clone)]
pub struct Step {
    pub name: String,
    pub act: Act,
}

impl Step {
    fn request(method: &'static str, name: impl Into<String>, path: impl Into<String>) -> Self {
        let request = Request {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: Body::None,
            expect: Expect::Status(200),
            keep: Vec::new(),
            events: None,
            meanwhile: None,
            held: None,
            numbers_vary: false,
        };
        Self { name: name.into(), act: Act::Request(Box::new(request)) }
    }

    fn with(mut self, change: impl FnOnce(&mut Request)) -> Self {
        if let Act::Request(request) = &mut self.act {
            change(request);
        }
        self
    }

    /// In the name of whom a token was kept.
    pub fn by(self, who: &str) -> Self {
        self.header("authorization", format!("Bearer ${{{who}}}"))
    }

    /// In place of one of that name.
    pub fn header(self, name: &'static str, value: impl Into<String>) -> Self {
        self.with(|request| {
            request.headers.retain(|(other, _)| *other != name);
            request.headers.push((name, value.into()));
        })
    }

    pub fn json(self, body: Value) -> Self {
        self.body(Body::Json(body))
    }

    pub fn body(self, body: Body) -> Self {
        self.with(|request| request.body = body)
    }

    pub fn ok(self, status: u16) -> Self {
        self.with(|request| request.expect = Expect::Status(status))
    }

    pub fn refused(self, code: ErrorCode) -> Self {
        self.with(|request| request.expect = Expect::Refused(code))
    }

    pub fn keep(self, name: &'static str, pointer: &'static str) -> Self {
        self.with(|request| request.keep.push((name, Place::Body(pointer))))
    }

    pub fn keep_cookie(self, name: &'static str, cookie: &'static str) -> Self {
        self.with(|request| request.keep.push((name, Place::Cookie(cookie))))
    }

    pub fn events(self, count: usize) -> Self {
        self.with(|request| request.events = Some(count))
    }

    pub fn meanwhile(self, step: Self) -> Self {
        self.with(|request| request.meanwhile = Some(Box::new(step)))
    }

    pub fn held(self, milliseconds: Range<u64>) -> Self {
        self.with(|request| request.held = Some(milliseconds))
    }

    pub fn numbers_vary(self) -> Self {
        self.with(|request| request.numbers_vary = true)
    }
}

pub fn get(name: impl Into<String>, path: impl Into<String>) -> Step {
    Step::request("GET", name, path)
}

pub fn post(name: impl Into<String>, path: impl Into<String>, body: Value) -> Step {
    Step::request("POST", name, path).json(body)
}

pub fn put(name: impl Into<String>, path: impl Into<String>, body: Value) -> Step {
    Step::request("PUT", name, path).json(body)
}

pub fn delete(name: impl Into<String>, path: impl Into<String>) -> Step {
    Step::request("DELETE", name, path).ok(204)
}

pub fn any(method: &'static str, name: impl Into<String>, path: impl Into<String>) -> Step {
    Step::request(method, name, path)
}

pub fn database(name: &str, sql: &'static str) -> Step {
    Step { name: name.to_owned(), act: Act::Database(sql) }
}

/// Remembers `${signature}` over `${nonce}` for the executor kept under `executor`.
pub fn sign(executor: &'static str, key: u8, session: &'static str) -> Step {
    Step { name: format!("sign the nonce for {executor}"), act: Act::Sign { executor, key, session } }
}
