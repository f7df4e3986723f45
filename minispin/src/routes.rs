//! Which component answers a path. Exact routes and the `/...` suffix, as in Spin; the longest match wins.

use std::fmt;

/// A parsed `route` of a trigger.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Without trailing slash and without `/...`: the root is empty.
    prefix: String,
    wildcard: bool,
}

impl Route {
    /// Refuses single-segment wildcards (`/tasks/:id`), which Spin has and minispin does not.
    pub fn parse(route: &str) -> Result<Self, String> {
        if !route.starts_with('/') {
            return Err("a route starts with a slash".into());
        }
        let (path, wildcard) = match route.strip_suffix("/...") {
            Some(path) => (path, true),
            None => (route.trim_end_matches('/'), false),
        };
        if let Some(segment) = path.split('/').find(|segment| segment.starts_with(':')) {
            return Err(format!(
                "`{segment}` is a named wildcard, which Spin supports and minispin does not"
            ));
        }
        if path.contains("...") || path.contains('*') {
            return Err("a wildcard is written `/...`, at the end".into());
        }
        Ok(Self { prefix: path.to_owned(), wildcard })
    }

    /// What follows the prefix, if the route matches; a trailing slash makes no difference to an exact route.
    pub fn matches<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = path.strip_prefix(self.prefix.as_str())?;
        let matches = match self.wildcard {
            true => rest.is_empty() || rest.starts_with('/'),
            false => rest.is_empty() || rest == "/",
        };
        matches.then_some(if self.wildcard { rest } else { "" })
    }

    /// Longer prefixes win; at the same length the exact route does.
    fn rank(&self) -> (usize, bool) {
        (self.prefix.len(), !self.wildcard)
    }

    /// The route without its wildcard suffix, as Spin's `spin-component-route` header gives it.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// As Spin lists it at start.
    pub fn listing(&self) -> String {
        match self.wildcard {
            true => format!("{} (wildcard)", self.prefix),
            false => self.to_string(),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.wildcard, self.prefix.as_str()) {
            (true, prefix) => write!(f, "{prefix}/..."),
            (false, "") => f.write_str("/"),
            (false, prefix) => f.write_str(prefix),
        }
    }
}

/// The routes of an application, each leading to a `T`.
pub struct Router<T>(Vec<(Route, T)>);

impl<T> Router<T> {
    pub fn new(routes: impl IntoIterator<Item = (Route, T)>) -> Self {
        let mut routes: Vec<_> = routes.into_iter().collect();
        routes.sort_by_key(|(route, _)| std::cmp::Reverse(route.rank()));
        Self(routes)
    }

    /// The best route for `path`, its target, and what a wildcard matched.
    pub fn find<'r, 'p>(&'r self, path: &'p str) -> Option<(&'r Route, &'r T, &'p str)> {
        self.0.iter().find_map(|(route, target)| Some((route, target, route.matches(path)?)))
    }

    pub fn iter(&self) -> impl Iterator<Item = &(Route, T)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(routes: &[&'static str]) -> Router<&'static str> {
        Router::new(routes.iter().map(|route| (Route::parse(route).expect("valid"), *route)))
    }

    #[test]
    fn the_longest_match_wins_and_an_exact_one_before_a_wildcard() {
        let router = router(&["/...", "/api/...", "/api/tasks", "/api/tasks/..."]);
        for (path, route, rest) in [
            ("/", "/...", "/"),
            ("/apis", "/...", "/apis"),
            ("/api", "/api/...", ""),
            ("/api/x", "/api/...", "/x"),
            ("/api/tasks", "/api/tasks", ""),
            ("/api/tasks/", "/api/tasks", ""),
            ("/api/tasks/7", "/api/tasks/...", "/7"),
        ] {
            let (_, target, found) = router.find(path).expect(path);
            assert_eq!((*target, found), (route, rest), "{path}");
        }
    }

    #[test]
    fn a_path_without_a_route_finds_nothing() {
        let router = router(&["/api/...", "/"]);
        assert!(router.find("/apis").is_none());
        assert!(router.find("/other").is_none());
        assert!(router.find("/").is_some());
    }

    #[test]
    fn what_minispin_cannot_route_is_refused_by_name() {
        assert!(Route::parse("/static/:id").expect_err("refused").contains("`:id`"));
        for route in ["", "api", "/a/.../b", "/*"] {
            assert!(Route::parse(route).is_err(), "{route}");
        }
    }

    #[test]
    fn a_route_prints_as_it_was_written() {
        for route in ["/", "/...", "/api", "/api/..."] {
            assert_eq!(Route::parse(route).expect("valid").to_string(), route);
        }
    }
}
