//! Selection by route: the settings name the pool of a path and method.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::{Method, Request};
use matchit::Router;

use super::{Select, Selection, Target};
use crate::pools::Pools;

/// Selects by the routes of the settings. A request that matches none of them runs inline.
///
/// If several routes match, one with the request's method wins over one for all methods, and a literal segment wins
/// over a parameter. A route for `GET` also matches `HEAD`, unless there is a route for `HEAD` itself.
///
/// [`PoolLayer::by_route`](crate::PoolLayer::by_route) compares the path that the layer sees, which inside axum's
/// `nest` lacks the router's prefix. [`PoolLayer::by_route_under`](crate::PoolLayer::by_route_under) puts it back.
#[derive(Clone)]
pub struct ByRoute {
    table: Arc<Table>,
}

/// The routes, each as its index among the routes of the settings.
struct Table {
    pools: Pools,
    targets: Vec<Target>,
    names: Vec<Arc<str>>,
    /// The prefix that a router has removed from each path, without a `/` at its end.
    prefix: Option<String>,
    /// A table for each method that a route names.
    methods: Vec<(Method, Router<usize>)>,
    any: Router<usize>,
}

impl ByRoute {
    pub(crate) fn new(pools: &Pools, prefix: Option<String>) -> Self {
        let mut table = Table {
            pools: pools.clone(),
            targets: Vec::new(),
            names: Vec::new(),
            prefix,
            methods: Vec::new(),
            any: Router::new(),
        };
        for (index, route) in pools.routes().iter().enumerate() {
            table.names.push(route.path().into());
            table.targets.push(Target::resolve(pools, route.pool()));
            let routes = route.method().map_or(&mut table.any, |method| routes_of(&mut table.methods, method));
            routes.insert(route.path(), index).expect("the routes of the settings were checked against each other");
        }
        Self { table: Arc::new(table) }
    }

    /// The path of the route that matches, as the settings have it.
    pub(crate) fn name(&self, method: &Method, path: &str) -> Option<Arc<str>> {
        self.table.find(method, path).map(|index| self.table.names[index].clone())
    }

    /// Whether a route of the settings can match a request to this layer.
    pub(crate) fn can_match(&self) -> bool {
        let prefix = self.table.prefix.as_deref().unwrap_or_default();
        self.table.pools.routes().iter().any(|route| leads_below(route.path(), prefix))
    }
}

impl Table {
    /// The route of a request, by its index.
    fn find(&self, method: &Method, path: &str) -> Option<usize> {
        let Some(prefix) = &self.prefix else { return self.find_whole(method, path) };
        // A nested router passes on `/` for its prefix alone, and may do so for its prefix with a slash.
        let whole = if path == "/" { Cow::Borrowed(prefix.as_str()) } else { Cow::Owned(format!("{prefix}{path}")) };
        let found = self.find_whole(method, &whole);
        found.or_else(|| (path == "/").then(|| self.find_whole(method, &format!("{prefix}/"))).flatten())
    }

    fn find_whole(&self, method: &Method, path: &str) -> Option<usize> {
        self.find_for(method, path)
            .or_else(|| (method == Method::HEAD).then(|| self.find_for(&Method::GET, path)).flatten())
            .or_else(|| Some(*self.any.at(path).ok()?.value))
    }

    fn find_for(&self, method: &Method, path: &str) -> Option<usize> {
        let routes = self.methods.iter().find(|(other, _)| other == method).map(|(_, routes)| routes);
        routes.and_then(|routes| Some(*routes.at(path).ok()?.value))
    }
}

fn routes_of<'a>(methods: &'a mut Vec<(Method, Router<usize>)>, method: &Method) -> &'a mut Router<usize> {
    let index = methods.iter().position(|(other, _)| other == method).unwrap_or_else(|| {
        methods.push((method.clone(), Router::new()));
        methods.len() - 1
    });
    &mut methods[index].1
}

/// Whether a route can match a path that begins with `prefix`: segment by segment, a parameter matches anything.
fn leads_below(route: &str, prefix: &str) -> bool {
    let mut segments = route.split('/');
    for wanted in prefix.split('/') {
        match segments.next() {
            Some(segment) if segment.starts_with("{*") => return true,
            Some(segment) if segment == wanted || is_parameter(segment) || is_parameter(wanted) => {}
            _ => return false,
        }
    }
    true
}

fn is_parameter(segment: &str) -> bool {
    segment.contains('{')
}

impl<B> Select<Request<B>> for ByRoute {
    fn select(&self, request: &Request<B>) -> Selection {
        let found = self.table.find(request.method(), request.uri().path());
        self.table.pools.routes().saw(found);
        found.map_or_else(Selection::inline, |index| Selection::new(self.table.targets[index].clone()))
    }
}

impl fmt::Debug for ByRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByRoute").field("prefix", &self.table.prefix).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::leads_below;

    #[test]
    fn a_route_leads_below_a_prefix_that_its_first_segments_match() {
        for (route, prefix, leads) in [
            ("/a", "", true),
            ("/api/v1/hash", "/api/v1", true),
            ("/api/v1", "/api/v1", true),
            ("/api/{version}/hash", "/api/v1", true),
            ("/{*rest}", "/api/v1", true),
            ("/users/{id}/files", "/users/{user}", true),
            ("/hash", "/api/v1", false),
            ("/api", "/api/v1", false),
            ("/apis/v1/hash", "/api/v1", false),
        ] {
            assert_eq!(leads_below(route, prefix), leads, "{route} below {prefix}");
        }
    }
}
