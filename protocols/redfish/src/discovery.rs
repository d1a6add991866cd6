//! Finding things by their links, and reading collections as they come.
//!
//! Nothing is assumed beyond `/redfish/v1/`: iDRAC generations move their resources about, and other vendors have
//! other names. What was found is remembered until [`Client::forget_links`]; a service that has been updated or
//! reset deserves that call.
//!
//! Collections come whole, in pages, expanded or as bare links, with members that cannot be read. A collection
//! says of itself whether it is complete, because a missing row must never be taken for a removed one.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
};

use http::Method;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    classify::Class,
    client::{Call, Client},
    document::{self, Document, Evidence, at, link, link_at, str_at},
    error::{Error, Problem},
    model::Unreadable,
    session::Presented,
    transport::TransportError,
};

pub(crate) const ROOT: &str = "/redfish/v1/";
/// Pages of one collection. The longest known are logs, and nobody needs more of them.
const MAX_PAGES: usize = 64;
/// Members of one collection.
pub(crate) const MAX_MEMBERS: usize = 5000;

/// Whether a document may be remembered: its own address (DSP0266, "Resource identifier property"), if given, is
/// text. What a service sends in a bad moment must not outlast that moment.
fn is_sane(document: &Document) -> bool {
    document.value.get("@odata.id").is_none_or(Value::is_string)
}

/// What was found so far.
#[derive(Default)]
pub(crate) struct Links {
    root: Option<Arc<Document>>,
    system: Option<String>,
    manager: Option<Arc<ManagerLinks>>,
    pub log_entries: Option<String>,
    /// The service declares `$expand` and does not do it.
    no_expand: bool,
}

/// The links of a manager that this client uses.
#[derive(Clone, Debug, Default)]
pub(crate) struct ManagerLinks {
    pub path: String,
    /// Dell's own queue.
    pub oem_jobs: Option<String>,
    pub oem_job_service: Option<String>,
    pub lc_service: Option<String>,
    pub log_services: Option<String>,
}

/// The service root as it is seen without a password.
pub(crate) enum Services {
    Known(Arc<Document>),
    /// The service shows nothing to strangers.
    NeedAuthentication,
}

/// The members of a collection.
pub(crate) struct Collection {
    pub members: Vec<Value>,
    pub unreadable: Vec<Unreadable>,
    /// Whether every declared member is in `members`.
    pub complete: bool,
}

impl Client {
    /// Drops everything that was found by links. Nothing is sent.
    pub fn forget_links(&self) {
        self.with_links(|links| *links = Links::default());
    }

    /// Paths of the systems of this service, in its order.
    ///
    /// # Errors
    /// The service root or the collection cannot be read, or there is no such collection.
    pub async fn systems(&self) -> Result<Vec<String>, Error> {
        let root = self.root().await?;
        let systems = link_at(&root.value, &["Systems"]).ok_or_else(|| self.not_declared(ROOT, "Systems"))?;
        let members = self.collection(systems, false).await?.members;
        Ok(members.iter().filter_map(link).map(str::to_owned).collect())
    }

    pub(crate) fn with_links<T>(&self, change: impl FnOnce(&mut Links) -> T) -> T {
        change(&mut self.links.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The service root, read without presenting anything; it is public by DSP0266, "Authentication requirements".
    pub(crate) async fn services(&self, deadline: Instant) -> Result<Services, Error> {
        if let Some(root) = self.with_links(|links| links.root.clone()) {
            return Ok(Services::Known(root));
        }
        let call = Call::get(ROOT, deadline);
        let failed = |failure| self.error(&Method::GET, ROOT, false, Problem::Transport(failure));
        let response = match self.send(&call, &Presented::Nothing, 1).await {
            Err(TransportError::NoAnswer { .. }) => self.send(&call, &Presented::Nothing, 2).await,
            outcome => outcome,
        };
        let response = response.map_err(failed)?;
        if matches!(response.status().as_u16(), 401 | 403) {
            return Ok(Services::NeedAuthentication);
        }
        let response = self.check(&call, response)?;
        let root = Arc::new(self.document(&Method::GET, ROOT, response)?);
        self.remember_root(&root);
        Ok(Services::Known(root))
    }

    /// The session collection, when there is one (`Links.Sessions`, or else by way of the session service).
    pub(crate) async fn sessions_path(
        &self,
        root: &Document,
        deadline: Instant,
    ) -> Result<Option<String>, Error> {
        if let Some(sessions) = link_at(&root.value, &["Links", "Sessions"]) {
            return Ok(Some(sessions.to_owned()));
        }
        let Some(service) = link_at(&root.value, &["SessionService"]) else { return Ok(None) };
        let call = Call::get(service, deadline);
        let response = self
            .send(&call, &Presented::Nothing, 1)
            .await
            .map_err(|failure| self.error(&Method::GET, service, false, Problem::Transport(failure)))?;
        let document = document::parse(response.body());
        Ok(document.as_ref().and_then(|value| link_at(value, &["Sessions"])).map(str::to_owned))
    }

    pub(crate) async fn root(&self) -> Result<Arc<Document>, Error> {
        match self.services(self.read_deadline()).await? {
            Services::Known(root) => Ok(root),
            Services::NeedAuthentication => {
                let root = Arc::new(self.get(ROOT).await?);
                self.remember_root(&root);
                Ok(root)
            }
        }
    }

    fn remember_root(&self, root: &Arc<Document>) {
        let leads_on = ["Systems", "Managers"].iter().any(|name| link_at(&root.value, &[name]).is_some());
        if leads_on && is_sane(root) {
            self.with_links(|links| links.root = Some(root.clone()));
        }
    }

    /// The path of the selected system, or of the only one.
    pub(crate) async fn system_path(&self) -> Result<String, Error> {
        if let Some(path) = self.with_links(|links| links.system.clone()) {
            return Ok(path);
        }
        let mut systems = self.systems().await?;
        let wanted = self.options.system.as_deref().or(self.endpoint.system());
        if let Some(wanted) = wanted {
            let last = |path: &str| path.rsplit('/').next() == Some(wanted);
            systems.retain(|path| {
                let path = path.trim_end_matches('/');
                path == wanted.trim_end_matches('/') || last(path)
            });
        }
        let path = match systems.as_slice() {
            [path] => path.clone(),
            // Dell lists no system for up to two minutes while its services restart.
            [] => {
                let evidence = crate::client::evidence(ROOT, 200, &bytes::Bytes::new());
                let what = match wanted {
                    Some(wanted) => format!("there is no system {wanted}"),
                    None => "the list of systems is empty".to_owned(),
                };
                return Err(self.error(&Method::GET, ROOT, false, Problem::Malformed { what, evidence }));
            }
            _ => {
                let problem = Problem::SystemNotSelected { members: systems };
                return Err(self.error(&Method::GET, ROOT, false, problem));
            }
        };
        self.with_links(|links| links.system = Some(path.clone()));
        Ok(path)
    }

    /// The links of the manager, remembered or read.
    pub(crate) async fn manager_links(&self) -> Result<Arc<ManagerLinks>, Error> {
        match self.with_links(|links| links.manager.clone()) {
            Some(links) => Ok(links),
            None => Ok(self.manager().await?.0),
        }
    }

    /// The manager of the system, read now. With a single manager the system is not asked, so that a system which
    /// cannot be read hides nothing.
    pub(crate) async fn manager(&self) -> Result<(Arc<ManagerLinks>, Document), Error> {
        let path = match self.with_links(|links| links.manager.clone()) {
            Some(links) => links.path.clone(),
            None => self.manager_path().await?,
        };
        let document = self.get(&path).await?;
        let value = &document.value;
        let dell = |name: &str| link_at(value, &["Links", "Oem", "Dell", name]).map(str::to_owned);
        let links = Arc::new(ManagerLinks {
            path,
            oem_jobs: dell("Jobs"),
            oem_job_service: dell("DellJobService"),
            lc_service: dell("DellLCService"),
            log_services: link_at(value, &["LogServices"]).map(str::to_owned),
        });
        if is_sane(&document) {
            self.with_links(|known| known.manager = Some(links.clone()));
        }
        Ok((links, document))
    }

    async fn manager_path(&self) -> Result<String, Error> {
        let root = self.root().await?;
        let missing = || self.not_declared(ROOT, "a manager");
        let managers = match link_at(&root.value, &["Managers"]) {
            Some(path) => self.collection(path, false).await?.members,
            None => Vec::new(),
        };
        if let [only] = managers.as_slice() {
            return link(only).map(str::to_owned).ok_or_else(missing);
        }
        let system = self.get(&self.system_path().await?).await?;
        let managed_by = at(&system.value, &["Links", "ManagedBy"]);
        let first = managed_by.into_iter().flat_map(document::items).find_map(link);
        first.map(str::to_owned).ok_or_else(missing)
    }

    /// The link of a service in the root.
    pub(crate) async fn service(&self, name: &str) -> Result<String, Error> {
        let root = self.root().await?;
        let path = link_at(&root.value, &[name]).map(str::to_owned);
        path.ok_or_else(|| self.not_declared(ROOT, name))
    }

    /// Reads a collection with all its pages; with `contents`, every member is a document, otherwise maybe a link.
    pub(crate) async fn collection(&self, path: &str, contents: bool) -> Result<Collection, Error> {
        let mut first = None;
        if contents && let Some(query) = self.expand_query().await {
            match self.get(&with_query(path, query)).await {
                Ok(document) => first = Some(document),
                Err(error) if declines_expand(&error) => self.with_links(|links| links.no_expand = true),
                Err(error) => return Err(error),
            }
        }
        let mut page = match first {
            Some(page) => page,
            None => self.get(path).await?,
        };
        let mut collection = Collection { members: Vec::new(), unreadable: Vec::new(), complete: true };
        let declared = document::number_at(&page.value, "Members@odata.count");
        let mut visited = BTreeSet::from([path.to_owned()]);
        loop {
            let next = next_page(&page.value).map(str::to_owned);
            self.take_members(&mut page, contents, &mut collection).await;
            let Some(next) = next else { break };
            let safe = self.endpoint.path_of(&next).map(str::to_owned);
            let enough = visited.len() >= MAX_PAGES || collection.members.len() >= MAX_MEMBERS;
            let Some(next) = safe.filter(|next| !enough && visited.insert(next.clone())) else {
                collection.complete = false;
                break;
            };
            match self.get(&next).await {
                Ok(document) => page = document,
                Err(error) => {
                    collection.unreadable.push(Unreadable { what: next, error });
                    break;
                }
            }
        }
        let found = (collection.members.len() + collection.unreadable.len()) as u64;
        let all = declared.is_none_or(|declared| found >= declared);
        collection.complete &= all && collection.unreadable.is_empty();
        Ok(collection)
    }

    async fn take_members(&self, page: &mut Document, contents: bool, collection: &mut Collection) {
        let Some(Value::Array(members)) = page.value.get_mut("Members").map(Value::take) else { return };
        for member in members {
            if collection.members.len() >= MAX_MEMBERS {
                collection.complete = false;
                return;
            }
            if !contents || is_document(&member) {
                collection.members.push(member);
                continue;
            }
            let Some(path) = link(&member) else {
                collection.complete = false;
                continue;
            };
            match self.get(path).await {
                Ok(document) => collection.members.push(document.value),
                // Deleted since the collection was read: jobs and tasks do that.
                Err(error) if error.class() == Class::NotFound => {
                    collection.unreadable.push(Unreadable { what: path.to_owned(), error });
                }
                Err(error) => collection.unreadable.push(Unreadable { what: path.to_owned(), error }),
            }
        }
    }

    /// The query that expands one level, as declared (DSP0266, "The $expand query parameter", `ProtocolFeaturesSupported.ExpandQuery`).
    async fn expand_query(&self) -> Option<&'static str> {
        if self.with_links(|links| links.no_expand) {
            return None;
        }
        let root = self.root().await.ok()?;
        let declared = at(&root.value, &["ProtocolFeaturesSupported", "ExpandQuery"])?;
        let has = |name| document::bool_at(declared, name) == Some(true);
        match (has("NoLinks"), has("ExpandAll"), has("Levels")) {
            (true, _, true) => Some("$expand=.($levels=1)"),
            (true, _, false) => Some("$expand=."),
            (false, true, true) => Some("$expand=*($levels=1)"),
            _ => None,
        }
    }
}

/// Whether an error may go away when `$expand` is left out.
fn declines_expand(error: &Error) -> bool {
    match error.problem() {
        Problem::Answer { status, .. } => {
            !matches!(error.class(), Class::Auth | Class::Busy { .. } | Class::NotFound)
                && matches!(*status, 400 | 404 | 500 | 501)
        }
        Problem::Transport(TransportError::TooLarge { .. }) => true,
        Problem::Malformed { .. } => true,
        _ => false,
    }
}

fn with_query(path: &str, query: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}{query}")
}

pub(crate) fn next_page(page: &Value) -> Option<&str> {
    str_at(page, "Members@odata.nextLink").or_else(|| str_at(page, "@odata.nextLink"))
}

/// Whether a member is more than a link.
pub(crate) fn is_document(member: &Value) -> bool {
    member.as_object().is_some_and(|member| member.keys().any(|key| !key.starts_with('@')))
}

/// Evidence of a resource that came within another answer.
pub(crate) fn own_path(value: &Value) -> String {
    link(value).unwrap_or_default().to_owned()
}

/// Collects what could be read and what could not.
pub(crate) fn keep<T>(result: Result<T, Error>, what: &str, unreadable: &mut Vec<Unreadable>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            unreadable.push(Unreadable { what: what.to_owned(), error });
            None
        }
    }
}

pub(crate) fn note(document: &Document, evidence: &mut Vec<Evidence>) {
    evidence.push(document.evidence.clone());
}
