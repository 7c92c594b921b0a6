//! The properties of routing that hold for any set of routes and any request.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};

use http::{HeaderName, Method, Request, Response};
use tower::{Layer, Service, service_fn};
use tower_offload::config::{Route, Trust};
use tower_offload::reject::{BadHeader, Protocol, Terms};
use tower_offload::select::ByRoute;
use tower_offload::{Config, PoolConfig, PoolLayer, Pools};

const POOLS: [&str; 5] = ["io", "cpu", "inference", "embedding", "db"];

/// Reads a pattern in each line up to an empty one, and a request such as `GET /path` in each line after it. A
/// valid pattern is the same after it was written and read, `matchit` accepts every set of routes that the settings
/// accept, and every request is sent to the pool of the route that should match.
pub(crate) fn check(text: &str) {
    let mut lines = text.split('\n');
    let patterns: Vec<&str> = lines.by_ref().take_while(|line| !line.is_empty()).take(32).collect();
    let mut config = POOLS.iter().fold(Config::default(), |config, name| {
        // The trusted header identifies the pool.
        let trust = Trust::default().priority(HeaderName::from_static(name));
        config.pool(*name, PoolConfig::new(1).trust(trust))
    });
    for (pattern, pool) in patterns.into_iter().zip(POOLS.iter().cycle()) {
        let Ok(route) = Route::new(pattern, *pool) else { continue };
        assert_eq!(Route::new(&route.to_string(), *pool).expect("it was accepted before"), route);
        let with_it = config.clone().route(route);
        if with_it.validate().is_ok() {
            config = with_it;
        }
    }
    let table = Table::new(&config.performance.routes);
    let router = PoolLayer::by_route(&Pools::new(&config).expect("the settings are valid"));
    for request in lines.take(32) {
        let (method, path) = request.split_once(' ').unwrap_or(("GET", request));
        let method = method.parse().unwrap_or(Method::GET);
        let expected = table.pool_of(&method, path);
        assert_eq!(table.by_matchit(&method, path), expected, "{method} {path:?}");
        let Ok(request) = Request::builder().method(&method).uri(path).body(()) else { continue };
        // The path has no query, and no host as in an absolute URI.
        let expected = table.pool_of(&method, request.uri().path());
        assert_eq!(chosen(&router, request).as_deref(), expected, "{method} {path:?}");
    }
}

/// The pool that the layer chooses.
fn chosen(router: &PoolLayer<ByRoute>, request: Request<()>) -> Option<String> {
    let seen = Seen::default();
    let service =
        service_fn(|_: Request<()>| -> Ready<Result<Response<()>, Infallible>> { ready(Ok(Response::new(()))) });
    // The first poll of the future submits the request, so this request never reaches the pool.
    drop(router.clone().errors().protocol(seen.clone()).layer(service).call(request));
    seen.0.lock().expect("nothing panics with it").take()
}

/// Records the pool whose trust settings it gets.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Option<String>>>);

impl<B, Res, Err> Protocol<Request<B>, Res, Err> for Seen {
    fn terms(&self, _request: &mut Request<B>, trust: &Trust) -> Result<Terms, BadHeader> {
        *self.0.lock().expect("nothing panics with it") = trust.priority.as_ref().map(ToString::to_string);
        Ok(Terms::default())
    }
}

/// The routes, matched one by one and by `matchit`.
struct Table<'a> {
    routes: &'a [Route],
    tables: HashMap<Option<&'a Method>, matchit::Router<&'a str>>,
}

impl<'a> Table<'a> {
    fn new(routes: &'a [Route]) -> Self {
        let mut tables: HashMap<_, matchit::Router<_>> = HashMap::new();
        for route in routes {
            let table = tables.entry(route.method()).or_default();
            table
                .insert(route.path(), route.pool().as_str())
                .expect("the settings accepted it together with the others");
        }
        Self { routes, tables }
    }

    fn pool_of(&self, method: &Method, path: &str) -> Option<&str> {
        ways(method).find_map(|way| {
            let routes = self.routes.iter().filter(|route| route.method() == way);
            let matching =
                routes.map(|route| (tokens(route.path()), route)).filter(|(tokens, _)| matches(tokens, path));
            Some(matching.min_by(|(one, _), (other, _)| one.cmp(other))?.1.pool().as_str())
        })
    }

    fn by_matchit(&self, method: &Method, path: &str) -> Option<&str> {
        ways(method).find_map(|way| Some(*self.tables.get(&way)?.at(path).ok()?.value))
    }
}

/// The methods whose routes are tried, in order.
fn ways(method: &Method) -> impl Iterator<Item = Option<&Method>> {
    let get = (method == Method::HEAD).then_some(Some(&Method::GET));
    std::iter::once(Some(method)).chain(get).chain([None])
}

/// A piece of a pattern. Of two, the lesser one has precedence.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Token {
    Character(char),
    /// The rest of a segment.
    Parameter,
    /// The rest of a path.
    Rest,
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let (token, length) = if rest.starts_with("{{") || rest.starts_with("}}") {
            (Token::Character(first), 2)
        } else if first == '{' {
            let token = if rest.starts_with("{*") { Token::Rest } else { Token::Parameter };
            (token, name_length(rest))
        } else {
            (Token::Character(first), first.len_utf8())
        };
        tokens.push(token);
        rest = &rest[length..];
    }
    tokens
}

/// The length of a parameter with its braces. Its name may contain doubled braces.
fn name_length(parameter: &str) -> usize {
    let mut length = 1;
    loop {
        match &parameter[length..] {
            rest if rest.starts_with("{{") || rest.starts_with("}}") => length += 2,
            rest if rest.starts_with('}') => return length + 1,
            rest => length += rest.chars().next().expect("a parameter ends").len_utf8(),
        }
    }
}

/// A parameter takes everything up to a slash, so there is one way to match at most. As in axum, it may be empty where
/// more comes after it.
fn matches(tokens: &[Token], path: &str) -> bool {
    let mut rest = path;
    for (place, token) in tokens.iter().enumerate() {
        let taken = match token {
            Token::Character(character) if !rest.starts_with(*character) => return false,
            Token::Character(character) => character.len_utf8(),
            _ if rest.is_empty() => return false,
            Token::Parameter => rest.find('/').unwrap_or(rest.len()),
            Token::Rest => rest.len(),
        };
        if taken == 0 && place + 1 == tokens.len() {
            return false;
        }
        rest = &rest[taken..];
    }
    rest.is_empty()
}
