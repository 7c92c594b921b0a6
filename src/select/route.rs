//! By route: a request runs in the pool that the settings give its path and method.

use std::fmt;

use http::{Method, Request};
use matchit::Router;

use super::{Select, Target};
use crate::pools::Pools;

/// Selects by the routes of the settings; a request that none of them matches runs inline.
///
/// Of the routes that match, the one with the request's method goes before one for all methods, and a literal segment
/// before a parameter. A route for `GET` is also one for `HEAD`, unless there is a route for `HEAD` itself. What is
/// matched is the path that the layer sees: inside axum's `nest` that is the path without the prefix.
#[derive(Clone)]
pub struct ByRoute {
    /// A table for each method that has routes of its own.
    methods: Vec<(Method, Router<Target>)>,
    any: Router<Target>,
}

impl ByRoute {
    pub(crate) fn new(pools: &Pools) -> Self {
        let mut by_route = Self { methods: Vec::new(), any: Router::new() };
        for route in pools.routes() {
            let table = route.method().map_or(&mut by_route.any, |method| table_of(&mut by_route.methods, method));
            let target = Target::resolve(pools, route.pool());
            table.insert(route.path(), target).expect("the routes of the settings were checked against each other");
        }
        by_route
    }

    fn find(&self, method: &Method, path: &str) -> Option<&Target> {
        let table = self.methods.iter().find(|(other, _)| other == method).map(|(_, table)| table);
        table.and_then(|table| Some(table.at(path).ok()?.value))
    }
}

fn table_of<'a>(methods: &'a mut Vec<(Method, Router<Target>)>, method: &Method) -> &'a mut Router<Target> {
    let index = methods.iter().position(|(other, _)| other == method).unwrap_or_else(|| {
        methods.push((method.clone(), Router::new()));
        methods.len() - 1
    });
    &mut methods[index].1
}

impl<B> Select<Request<B>> for ByRoute {
    fn select(&self, request: &Request<B>, _own: &Target) -> Target {
        let (method, path) = (request.method(), request.uri().path());
        self.find(method, path)
            .or_else(|| (method == Method::HEAD).then(|| self.find(&Method::GET, path)).flatten())
            .or_else(|| Some(self.any.at(path).ok()?.value))
            .map_or(Target::Inline, Target::clone)
    }
}

impl fmt::Debug for ByRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByRoute").finish_non_exhaustive()
    }
}
