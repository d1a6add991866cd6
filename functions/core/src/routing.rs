//! How each module lists its operations: `OpenApiRouter::new().routes(routes!(list, create))`.
//!
//! A native build gathers their description, too, for the document that is checked in. On Wasm hosts nobody could ask
//! for it, and its parts are a fifth of the module: there the same words make a Router and nothing else.

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use utoipa_axum::{router::OpenApiRouter, routes};

#[cfg(target_arch = "wasm32")]
pub(crate) use bare::{OpenApiRouter, routes};

#[cfg(target_arch = "wasm32")]
mod bare {
    use axum::{Router, routing::MethodRouter};

    #[derive(Default)]
    pub struct OpenApiRouter(Router);

    impl OpenApiRouter {
        pub fn new() -> Self {
            Self::default()
        }

        pub fn routes(self, (path, methods): (String, MethodRouter)) -> Self {
            Self(self.0.route(&path, methods))
        }

        pub fn merge(self, other: Self) -> Self {
            Self(self.0.merge(other.0))
        }
    }

    impl From<OpenApiRouter> for Router {
        fn from(OpenApiRouter(router): OpenApiRouter) -> Self {
            router
        }
    }

    /// The path of the handlers, which is the same for all, and each under its methods.
    macro_rules! routes {
        ($($handler:ident),+) => {{
            use utoipa::Path as _;
            use utoipa_axum::PathItemExt as _;
            utoipa_axum::paste! {
                let [path, ..] = [$([<__path_ $handler>]::path()),+];
                let methods = axum::routing::MethodRouter::new();
                $(let methods = [<__path_ $handler>]::methods()
                    .iter()
                    .fold(methods, |methods, method| methods.on(method.to_method_filter(), $handler));)+
                (path, methods)
            }
        }};
    }
    pub(crate) use routes;
}
