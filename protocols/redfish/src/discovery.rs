//! Finding things by their links, and reading collections as they come.
//!
//! Nothing is assumed beyond `/redfish/v1/`: iDRAC generations move their resources about, and other vendors have
//! other names. What was found is remembered until [`Client::forget_links`]; a service that has been updated or
//! reset deserves that call.
//!
//! Collections come whole, in pages, expanded or as bare links, with members that cannot be read, or without a list at
//! all. A collection says of itself whether it is complete, because a missing row must never be taken for a removed
//! one, and names what is missing. Pages, members and the time for them are bounded.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
};

use http::Method;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    classify::Class,
    client::{Call, Client},
    document::{self, Document, Evidence, at, field, link, link_at, str_at, without_query},
    error::{Error, Problem},
    model::{ResetKind, Unreadable},
    session::{FORBIDDEN, Presented},
    transport::TransportError,
};

pub(crate) const ROOT: &str = "/redfish/v1/";
/// Pages of one collection. The longest known are logs, and nobody needs more of them.
const MAX_PAGES: usize = 64;
/// Members of one collection.
pub(crate) const MAX_MEMBERS: usize = 5000;
/// Managers that are asked which servers are theirs, and chassis that are looked at.
const MAX_LOOKED_AT: usize = 8;

/// Whether a document may be remembered: its own address (DSP0266), if given, is
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
    /// Where the system is reset, and the kinds of resets.
    pub reset: Option<(String, Vec<ResetKind>)>,
    /// The service declares `$expand` and does not do it.
    no_expand: bool,
    /// Paths that were answered 401 in a session that was new, and until when that counts.
    forbidden: BTreeMap<String, Instant>,
}

/// Paths that are remembered as forbidden.
const MAX_FORBIDDEN: usize = 1000;

impl Links {
    /// A new session does not help `path`.
    pub(crate) fn forbid(&mut self, path: &str) {
        let now = Instant::now();
        self.forbidden.retain(|_, until| *until > now);
        if self.forbidden.len() < MAX_FORBIDDEN {
            self.forbidden.insert(without_query(path).to_owned(), now + FORBIDDEN);
        }
    }

    pub(crate) fn is_forbidden(&self, path: &str) -> bool {
        self.forbidden.get(without_query(path)).is_some_and(|until| *until > Instant::now())
    }

    /// The path of the manager, once it is known.
    pub(crate) fn manager_path(&self) -> Option<String> {
        self.manager.as_ref().map(|manager| manager.path.clone())
    }

    /// Whether `path` is asked for because of what is remembered.
    fn names(&self, path: &str) -> bool {
        let is = |link: &Option<String>| link.as_deref() == Some(path);
        let of_root = |root: &Arc<Document>| {
            root.value.as_object().is_some_and(|root| root.values().filter_map(link).any(|link| link == path))
        };
        is(&self.system)
            || is(&self.log_entries)
            || self.root.as_ref().is_some_and(of_root)
            || self.manager.as_ref().is_some_and(|manager| {
                let ManagerLinks { path: own, oem_jobs, oem_job_service, lc_service, log_services } =
                    &**manager;
                own == path || [oem_jobs, oem_job_service, lc_service, log_services].into_iter().any(is)
            })
    }
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
    /// Whether every one is there or named in `unreadable`.
    pub names_all: bool,
}

impl Client {
    /// Drops everything that was found by links. Nothing is sent.
    pub fn forget_links(&self) {
        self.with_links(|links| *links = Links::default());
    }

    /// A path that the service does not know any more: if it was remembered, so may be others that have moved with it.
    pub(crate) fn forget_moved(&self, path: &str) {
        self.with_links(|links| {
            if links.names(path) {
                *links = Links::default();
            }
        });
    }

    /// Paths of the systems of this service, in its order.
    ///
    /// # Errors
    /// The service root or the collection cannot be read, or there is no such collection.
    pub async fn systems(&self) -> Result<Vec<String>, Error> {
        let root = self.root().await?;
        let systems = link_at(&root.value, &["Systems"]).ok_or_else(|| self.not_declared(ROOT, "Systems"))?;
        self.collection(systems, false).await?.paths()
    }

    pub(crate) fn with_links<T>(&self, change: impl FnOnce(&mut Links) -> T) -> T {
        change(&mut self.links.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The service root, read without presenting anything; it is public by DSP0266.
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
        let document = self.parse(response.body());
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

    /// The same; `None` where the service declares no manager, or does not say which of several is the system's.
    pub(crate) async fn manager_if_declared(&self) -> Result<Option<Arc<ManagerLinks>>, Error> {
        match self.manager_links().await {
            Ok(links) => Ok(Some(links)),
            Err(error) if matches!(error.problem(), Problem::NotDeclared { .. }) => Ok(None),
            Err(error) => Err(error),
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

    /// The only manager; or the one the system names; or the one that names the system; or the only BMC.
    async fn manager_path(&self) -> Result<String, Error> {
        let root = self.root().await?;
        let managers = match link_at(&root.value, &["Managers"]) {
            Some(path) => self.collection(path, false).await.and_then(Collection::paths),
            None => Err(self.not_declared(ROOT, "a manager")),
        };
        if let Ok([only]) = managers.as_deref() {
            return Ok(only.clone());
        }
        let mut unreadable = None;
        let undeclared = |error: &Error| {
            matches!(error.problem(), Problem::NotDeclared { .. } | Problem::SystemNotSelected { .. })
        };
        let system = match self.system_document().await {
            Ok(system) => Some(system),
            Err(error) => {
                unreadable = (!undeclared(&error)).then_some(error);
                None
            }
        };
        let managed_by = system.as_ref().and_then(|system| at(&system.value, &["Links", "ManagedBy"]));
        if let Some(first) = managed_by.into_iter().flat_map(document::items).find_map(link) {
            return Ok(first.to_owned());
        }
        let managers = managers?;
        let system = system.map(|system| system.evidence.path.trim_end_matches('/').to_owned());
        let mut bmcs = Vec::new();
        for path in managers.iter().take(MAX_LOOKED_AT) {
            let manager = match self.get(path).await {
                Ok(manager) => manager,
                Err(error) => {
                    unreadable.get_or_insert(error);
                    continue;
                }
            };
            let mut servers =
                at(&manager.value, &["Links", "ManagerForServers"]).into_iter().flat_map(document::items);
            if servers.any(|server| link(server).map(|path| path.trim_end_matches('/')) == system.as_deref())
            {
                return Ok(path.clone());
            }
            if str_at(&manager.value, "ManagerType").is_some_and(|kind| kind.eq_ignore_ascii_case("BMC")) {
                bmcs.push(path);
            }
        }
        match bmcs.as_slice() {
            [only] => Ok((*only).clone()),
            _ => Err(unreadable.unwrap_or_else(|| {
                self.not_declared(ROOT, &format!("which of its {} managers is the system's", managers.len()))
            })),
        }
    }

    /// Paths of the chassis a system is in. Without any, or without a system, those the service lists: all of them
    /// where it has no systems, the only one where it does.
    pub(crate) async fn chassis_paths(&self, system: Option<&Document>) -> Result<Vec<String>, Error> {
        let named = system.and_then(|system| at(&system.value, &["Links", "Chassis"]));
        let named = owned_links(named.into_iter().flat_map(document::items));
        let mut found = if named.is_empty() {
            let path = self.service("Chassis").await?;
            let listed = self.collection(&path, false).await?.paths()?;
            if system.is_some() && listed.len() > 1 { Vec::new() } else { listed }
        } else {
            named
        };
        found.truncate(MAX_LOOKED_AT);
        Ok(found)
    }

    /// The link of a service in the root.
    pub(crate) async fn service(&self, name: &str) -> Result<String, Error> {
        let root = self.root().await?;
        let path = link_at(&root.value, &[name]).map(str::to_owned);
        path.ok_or_else(|| self.not_declared(ROOT, name))
    }

    /// Reads a collection with all its pages; with `contents`, every member is a document, otherwise maybe a link.
    pub(crate) async fn collection(&self, path: &str, contents: bool) -> Result<Collection, Error> {
        let until = Instant::now() + self.options.collection_time;
        let mut page = self.first_page(path, contents).await?;
        let declared = document::number_at(&page.value, "Members@odata.count");
        let mut gathered = Gathered::new(contents, until);
        let mut visited = BTreeSet::from([path.to_owned()]);
        loop {
            let next = next_page(&page.value).map(str::to_owned);
            self.take_members(&page, declared, &mut gathered).await;
            let Some(next) = next.filter(|_| !gathered.ended) else { break };
            let Some(next) = self.endpoint.path_of(&next).map(str::to_owned) else {
                let what = format!("the next page is at {next}, which is no path of this service");
                gathered.lacks(self.unusable(&page, what));
                break;
            };
            if visited.len() >= MAX_PAGES || !visited.insert(next.clone()) {
                let what = format!("{} pages were read and there is no end", visited.len());
                gathered.lacks(self.unusable(&page, what));
                break;
            }
            match self.get_by(&next, self.read_deadline().min(until)).await {
                Ok(document) => page = document,
                Err(error) => {
                    gathered.lacks(Unreadable { what: next, error });
                    break;
                }
            }
        }
        let named = gathered.members.len() + gathered.failed;
        if let Some(declared) = declared.filter(|declared| *declared > named as u64 && !gathered.ended) {
            let what = format!("it counts {declared} members and lists {named}");
            gathered.lacks(self.unusable(&page, what));
        }
        // An entry without an address is no member where the count is right without it.
        let counted = declared.is_some() || gathered.blank == 0;
        let (complete, names_all) = (counted && !gathered.lacking, counted && !gathered.unnamed);
        Ok(Collection { members: gathered.members, unreadable: gathered.unreadable, complete, names_all })
    }

    /// The first page, expanded if the service does that. A service that declares `$expand` may fail over it in any
    /// way (check_redfish issue 20); whether to leave it out for good is decided by what it says.
    async fn first_page(&self, path: &str, contents: bool) -> Result<Document, Error> {
        let query = if contents { self.expand_query().await } else { None };
        let Some(query) = query else { return self.get(path).await };
        match self.get(&with_query(path, query)).await {
            Ok(page) if field(&page.value, "Members").is_some() => Ok(page),
            Ok(_) => self.get(path).await,
            Err(error) if declines_expand(&error) => {
                let page = self.get(path).await?;
                if is_settled(&error) {
                    self.with_links(|links| links.no_expand = true);
                }
                Ok(page)
            }
            Err(error) => Err(error),
        }
    }

    async fn take_members(&self, page: &Document, declared: Option<u64>, gathered: &mut Gathered) {
        if field(&page.value, "error").is_some() {
            let error = self.error_within(&page.evidence.path, &page.value, &page.evidence);
            gathered.lacks(Unreadable { what: page.evidence.path.to_string(), error });
        }
        let members = match field(&page.value, "Members") {
            Some(Value::Array(members)) => members.as_slice(),
            Some(member @ Value::Object(_)) => std::slice::from_ref(member),
            None if declared == Some(0) => return,
            _ => {
                gathered.lacks(self.unusable(page, "it has no list of members".to_owned()));
                return;
            }
        };
        for (at, member) in members.iter().enumerate() {
            if gathered.members.len() + gathered.unreadable.len() >= MAX_MEMBERS {
                gathered.end(self.unusable(page, format!("more than {MAX_MEMBERS} members")));
                return;
            }
            if document::is_error(member) || link(member).is_some() && is_only_an_error(member) {
                gathered.unnamed |= link(member).is_none();
                let what = link(member).unwrap_or(&page.evidence.path).to_owned();
                let error = self.error_within(&page.evidence.path, member, &page.evidence);
                gathered.fail(Unreadable { what, error });
                continue;
            }
            if is_document(member) {
                gathered.members.push(member.clone());
                continue;
            }
            let Some(path) = link(member) else {
                gathered.blank += 1;
                let what = format!("entry {} of the list is {}, not a link", at + 1, shown(member));
                gathered.unreadable.push(self.unusable(page, what));
                continue;
            };
            if !gathered.contents {
                gathered.members.push(member.clone());
                continue;
            }
            if Instant::now() >= gathered.until {
                let seconds = self.options.collection_time.as_secs();
                let what = format!("not all members could be read within {seconds} s");
                gathered.end(self.unusable(page, what));
                return;
            }
            match self.get_by(path, self.read_deadline().min(gathered.until)).await {
                Ok(document) => gathered.members.push(document.value),
                // One that was deleted since the collection was read is among these: jobs and tasks do that.
                Err(error) => gathered.fail(Unreadable { what: path.to_owned(), error }),
            }
        }
    }

    /// What is wrong with a page of a collection.
    fn unusable(&self, page: &Document, what: String) -> Unreadable {
        let path = page.evidence.path.to_string();
        let problem = Problem::Malformed { what, evidence: page.evidence.clone() };
        Unreadable { error: self.error(&Method::GET, &path, false, problem), what: path }
    }

    /// The query that expands one level, as declared (DSP0266, `ProtocolFeaturesSupported.ExpandQuery`).
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

impl Collection {
    /// Where its members are.
    ///
    /// # Errors
    /// No member is named, and the list is not whole.
    pub fn paths(self) -> Result<Vec<String>, Error> {
        let found = owned_links(self.members.iter());
        match self.unreadable.into_iter().next() {
            Some(first) if found.is_empty() => Err(first.error),
            _ => Ok(found),
        }
    }
}

/// What was read of a collection so far.
struct Gathered {
    /// Whether members are wanted as documents.
    contents: bool,
    until: Instant,
    members: Vec<Value>,
    unreadable: Vec<Unreadable>,
    /// Members that are named and cannot be read.
    failed: usize,
    /// Entries that name no member.
    blank: usize,
    /// Whether a member may be missing.
    lacking: bool,
    /// Whether one may be that is not named either.
    unnamed: bool,
    /// Whether a bound was reached.
    ended: bool,
}

impl Gathered {
    fn new(contents: bool, until: Instant) -> Self {
        let (members, unreadable) = (Vec::new(), Vec::new());
        let (lacking, unnamed, ended) = (false, false, false);
        Self { contents, until, members, unreadable, failed: 0, blank: 0, lacking, unnamed, ended }
    }

    fn lacks(&mut self, what: Unreadable) {
        (self.lacking, self.unnamed) = (true, true);
        self.unreadable.push(what);
    }

    fn fail(&mut self, member: Unreadable) {
        self.failed += 1;
        self.lacking = true;
        self.unreadable.push(member);
    }

    fn end(&mut self, why: Unreadable) {
        self.ended = true;
        self.lacks(why);
    }
}

/// Whether an error may go away when `$expand` is left out: every answer but those about the password.
fn declines_expand(error: &Error) -> bool {
    match error.problem() {
        Problem::Answer { .. } => {
            !matches!(error.class(), Class::Auth | Class::Forbidden | Class::SessionLimit)
        }
        Problem::Transport(TransportError::TooLarge { .. }) => true,
        Problem::Malformed { .. } => true,
        _ => false,
    }
}

/// Whether it will be the same next time. A service that is not ready or breaks down (SWC0700 comes as 400, others as
/// 500) says nothing about `$expand`.
fn is_settled(error: &Error) -> bool {
    matches!(error.class(), Class::Unsupported | Class::Refused | Class::NotFound)
        || matches!(error.problem(), Problem::Transport(TransportError::TooLarge { .. }))
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

/// Whether a member is its address and an error, as in an expansion of which a part failed.
fn is_only_an_error(member: &Value) -> bool {
    let mut names = member.as_object().into_iter().flat_map(|member| member.keys());
    field(member, "error").is_some()
        && names.all(|name| name.starts_with('@') || name.eq_ignore_ascii_case("error"))
}

/// What stands where a link is meant.
fn shown(value: &Value) -> String {
    let text = field(value, "@odata.id").unwrap_or(value).to_string();
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

fn owned_links<'a>(values: impl Iterator<Item = &'a Value>) -> Vec<String> {
    values.filter_map(link).map(str::to_owned).collect()
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
