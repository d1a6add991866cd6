//! Users of a BMC (sections 22.26 to 22.31): who may do what on a channel, and changes to that.
//!
//! Names and passwords belong to the BMC; privileges and "enabled for IPMI" belong to a user on one channel.

use zeroize::Zeroizing;

use super::patience::{refusal, run};
use super::text::{Encoding, decode};
use crate::session::Privilege;
use crate::wire::bytes::Reader;
use crate::{Carrier, Command, CompletionCode, Error, Malformed, NetFn, Request};

/// Bytes of a name on the wire.
const NAME_LEN: usize = 16;

const fn app(code: u8, data: Vec<u8>) -> Request {
    Request { net_fn: NetFn::APP, code, lun: 0, data }
}

/// A user as a list shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// 1 to 63; user 1 is the null user on many BMCs.
    pub id: u8,
    /// Empty for the null user or a free slot.
    pub name: String,
    pub access: UserAccess,
}

/// Get User Access (section 22.27).
#[derive(Clone, Copy, Debug)]
pub struct GetUserAccess {
    pub channel: u8,
    pub id: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UserAccess {
    /// Highest user id of the BMC.
    pub max_users: u8,
    pub enabled_users: u8,
    /// Users whose names are fixed, from id 1.
    pub fixed_names: u8,
    /// `None` if the BMC does not say.
    pub enabled: Option<bool>,
    /// Highest privilege on the channel; `None` is no access.
    pub privilege: Option<Privilege>,
    /// May open sessions on the channel.
    pub ipmi_messaging: bool,
    pub link_authentication: bool,
    pub callback_only: bool,
}

impl Command for GetUserAccess {
    type Answer = UserAccess;

    fn request(&self) -> Request {
        app(0x44, vec![self.channel & 0x0f, self.id & 0x3f])
    }

    fn parse(&self, data: &[u8]) -> Result<UserAccess, Malformed> {
        let mut reader = Reader::new("user access", data);
        let [max_users, enabled, fixed, access] = reader.array()?;
        Ok(UserAccess {
            max_users: max_users & 0x3f,
            enabled_users: enabled & 0x3f,
            fixed_names: fixed & 0x3f,
            enabled: match enabled >> 6 {
                1 => Some(true),
                2 => Some(false),
                _ => None,
            },
            privilege: Privilege::from_number(access),
            ipmi_messaging: access & 0x10 != 0,
            link_authentication: access & 0x20 != 0,
            callback_only: access & 0x40 != 0,
        })
    }
}

/// Set User Access (section 22.26).
#[derive(Clone, Copy, Debug)]
pub struct SetUserAccess {
    pub channel: u8,
    pub id: u8,
    /// `None` is no access.
    pub privilege: Option<Privilege>,
    pub ipmi_messaging: bool,
    pub link_authentication: bool,
    pub callback_only: bool,
}

/// Privilege "no access".
const NO_ACCESS: u8 = 0x0f;

impl Command for SetUserAccess {
    type Answer = ();

    fn request(&self) -> Request {
        let flags = u8::from(self.callback_only) << 6
            | u8::from(self.link_authentication) << 5
            | u8::from(self.ipmi_messaging) << 4;
        let privilege = self.privilege.map_or(NO_ACCESS, Privilege::number);
        // Bit 7: the flags are to be changed too.
        app(0x43, vec![0x80 | flags | self.channel & 0x0f, self.id & 0x3f, privilege])
    }

    fn parse(&self, _data: &[u8]) -> Result<(), Malformed> {
        Ok(())
    }
}

/// Get User Name (section 22.29).
#[derive(Clone, Copy, Debug)]
pub struct GetUserName {
    pub id: u8,
}

impl Command for GetUserName {
    type Answer = String;

    fn request(&self) -> Request {
        app(0x46, vec![self.id & 0x3f])
    }

    fn parse(&self, data: &[u8]) -> Result<String, Malformed> {
        let name = data.get(..NAME_LEN).unwrap_or(data);
        // What follows a NUL is what an older and longer name left behind.
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        Ok(decode(Encoding::Latin1, name.get(..end).unwrap_or(name)))
    }
}

/// Set User Name (section 22.28).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetUserName {
    id: u8,
    name: [u8; NAME_LEN],
}

impl SetUserName {
    /// A name of at most 16 ASCII characters without spaces at its ends; empty frees the slot.
    pub fn new(id: u8, name: &str) -> Result<Self, Malformed> {
        let malformed = |why| Malformed { what: "user name", why };
        if !name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_control()) || name.trim() != name {
            return Err(malformed("not printable ASCII"));
        }
        let mut bytes = [0; NAME_LEN];
        let place = bytes.get_mut(..name.len()).ok_or(malformed("longer than 16 characters"))?;
        place.copy_from_slice(name.as_bytes());
        Ok(Self { id, name: bytes })
    }
}

impl Command for SetUserName {
    type Answer = ();

    fn request(&self) -> Request {
        let mut data = vec![self.id & 0x3f];
        data.extend(self.name);
        app(0x45, data)
    }

    fn parse(&self, _data: &[u8]) -> Result<(), Malformed> {
        Ok(())
    }
}

/// How many bytes of a password a BMC keeps; IPMI 2.0 sessions can use either.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PasswordSize {
    /// 16 bytes, IPMI 1.5.
    Sixteen,
    /// 20 bytes, IPMI 2.0.
    Twenty,
}

impl PasswordSize {
    const fn bytes(self) -> usize {
        match self {
            Self::Sixteen => 16,
            Self::Twenty => 20,
        }
    }
}

/// A password for one user; wiped when dropped, never printed.
#[derive(Clone)]
pub struct UserPassword {
    size: PasswordSize,
    /// Padded with zeros.
    bytes: Zeroizing<[u8; 20]>,
}

impl UserPassword {
    pub fn new(size: PasswordSize, password: &[u8]) -> Result<Self, Malformed> {
        let malformed = |why| Malformed { what: "password", why };
        if password.contains(&0) {
            return Err(malformed("contains a NUL"));
        }
        let mut bytes = Zeroizing::new([0; 20]);
        match bytes.get_mut(..password.len()) {
            Some(place) if password.len() <= size.bytes() => place.copy_from_slice(password),
            _ => return Err(malformed("too long")),
        }
        Ok(Self { size, bytes })
    }
}

impl std::fmt::Debug for UserPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UserPassword")
    }
}

/// Set User Password (section 22.30), which also switches users on and off.
#[derive(Clone, Debug)]
pub struct SetUserPassword {
    pub id: u8,
    pub operation: PasswordOperation,
}

#[derive(Clone, Debug)]
pub enum PasswordOperation {
    Disable,
    Enable,
    Set(UserPassword),
    /// Is this the password? See [`test_password`].
    Test(UserPassword),
}

impl Command for SetUserPassword {
    type Answer = ();

    fn request(&self) -> Request {
        let (code, password) = match &self.operation {
            PasswordOperation::Disable => (0, None),
            PasswordOperation::Enable => (1, None),
            PasswordOperation::Set(password) => (2, Some(password)),
            PasswordOperation::Test(password) => (3, Some(password)),
        };
        let twenty = password.is_some_and(|password| password.size == PasswordSize::Twenty);
        // Room for all of it at once: a vector that grows leaves copies behind.
        let mut data = Vec::with_capacity(2 + 20);
        data.extend([u8::from(twenty) << 7 | self.id & 0x3f, code]);
        if let Some(password) = password {
            data.extend(password.bytes.iter().take(password.size.bytes()));
        }
        app(0x47, data)
    }

    fn parse(&self, _data: &[u8]) -> Result<(), Malformed> {
        Ok(())
    }
}

/// Whether the BMC has this password for the user. A password of the other size is not it.
pub async fn test_password(carrier: &impl Carrier, id: u8, password: UserPassword) -> Result<bool, Error> {
    let command = SetUserPassword { id, operation: PasswordOperation::Test(password) };
    match run(carrier, &command).await {
        Ok(()) => Ok(true),
        // Section 22.30: 80h wrong password, 81h wrong size.
        Err(error) if matches!(refusal(&error), Some(CompletionCode(0x80 | 0x81))) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The accounts of a BMC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Users {
    /// Every slot with its access on the channel, used or free.
    pub users: Vec<User>,
    /// Slots of which the BMC tells nothing; on some these are the free ones.
    pub untold: Vec<u8>,
}

/// Slots that are asked in turn for how many there are: the first one belongs to nobody on some BMCs, and is refused.
const FIRST_SLOTS: std::ops::RangeInclusive<u8> = 1..=3;

/// Every user slot of the BMC with its access on `channel`.
pub async fn list(carrier: &impl Carrier, channel: u8) -> Result<Users, Error> {
    let slots = slots(carrier, channel).await?;
    let mut found = Users { users: Vec::with_capacity(usize::from(slots)), untold: Vec::new() };
    for id in 1..=slots {
        match user(carrier, channel, id).await {
            Ok(user) => found.users.push(user),
            Err(error) if error.is_about_one_answer() => found.untold.push(id),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// How many slots there are.
async fn slots(carrier: &impl Carrier, channel: u8) -> Result<u8, Error> {
    let mut why = Malformed { what: "user access", why: "it says that there is no user at all" }.into();
    for id in FIRST_SLOTS {
        match run(carrier, &GetUserAccess { channel, id }).await {
            Ok(access) if access.max_users > 0 => return Ok(access.max_users),
            Ok(_) => {}
            Err(error) if error.is_about_one_answer() => why = error,
            Err(error) => return Err(error),
        }
    }
    Err(why)
}

async fn user(carrier: &impl Carrier, channel: u8, id: u8) -> Result<User, Error> {
    let access = run(carrier, &GetUserAccess { channel, id }).await?;
    let name = match run(carrier, &GetUserName { id }).await {
        Ok(name) => name,
        // Free slots have no name to tell on some BMCs.
        Err(error) if error.is_about_one_answer() => String::new(),
        Err(error) => return Err(error),
    };
    Ok(User { id, name, access })
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, ok, refuse};
    use super::*;

    #[tokio::test]
    async fn users_are_listed() {
        let bmc = Fake::new(|request| match (request.code, request.data.as_slice()) {
            (0x44, [1, 3]) => refuse(CompletionCode(0xcc)),
            // As ipmi_sim answers for its second user.
            (0x44, [1, 2]) => ok(&[0x04, 0x42, 0x01, 0x14]),
            (0x44, [1, _]) => ok(&[0x04, 0x82, 0x01, 0x3f]),
            (0x46, [2]) => ok(b"admin\0left\0\0\0\0\0\0"),
            (0x46, [1]) => ok(&[0; 16]),
            _ => refuse(CompletionCode(0xcc)),
        });
        let Users { users, untold } = list(&bmc, 1).await.unwrap();
        assert_eq!(untold, [3]);
        assert_eq!(users.iter().map(|user| user.id).collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!(users[1].name, "admin");
        assert_eq!(users[1].access.privilege, Some(Privilege::Administrator));
        assert_eq!((users[1].access.enabled, users[1].access.ipmi_messaging), (Some(true), true));
        assert_eq!((users[0].access.privilege, users[0].access.enabled), (None, Some(false)));
    }

    /// The slot of the null user is refused by some BMCs, also where the others are told.
    #[tokio::test]
    async fn how_many_slots_there_are_is_asked_of_another_one_where_the_first_is_refused() {
        let bmc = Fake::new(|request| match (request.code, request.data.as_slice()) {
            (0x44, [_, 2]) => ok(&[0x02, 0x42, 0x01, 0x14]),
            (0x46, [2]) => ok(b"admin\0\0\0\0\0\0\0\0\0\0\0"),
            _ => refuse(CompletionCode::INVALID_FIELD),
        });
        let found = list(&bmc, 1).await.unwrap();
        assert_eq!((found.users.len(), found.untold), (1, vec![1]));
        let none = Fake::new(|_| ok(&[0, 0, 0, 0]));
        assert!(list(&none, 1).await.is_err(), "a BMC without any user is not believed");
    }

    #[test]
    fn changes_are_those_of_the_specification() {
        let access = SetUserAccess {
            channel: 1,
            id: 3,
            privilege: Some(Privilege::Operator),
            ipmi_messaging: true,
            link_authentication: false,
            callback_only: false,
        };
        assert_eq!(access.request().data, [0x91, 3, 3]);
        let name = SetUserName::new(3, "root").unwrap().request().data.clone();
        assert_eq!((name.len(), &name[..6]), (17, [3, b'r', b'o', b'o', b't', 0].as_slice()));
        assert!(SetUserName::new(3, "seventeen letters").is_err());
        assert!(SetUserName::new(3, "r\u{f6}t").is_err());
        let password = UserPassword::new(PasswordSize::Twenty, b"0123456789abcdefghij").unwrap();
        assert_eq!(format!("{password:?}"), "UserPassword");
        let set = SetUserPassword { id: 3, operation: PasswordOperation::Set(password) };
        assert!(!format!("{set:?}").contains("0123"));
        let data = set.request().data.clone();
        assert_eq!((data.len(), &data[..4]), (22, [0x83, 2, b'0', b'1'].as_slice()));
        assert!(UserPassword::new(PasswordSize::Sixteen, b"0123456789abcdefg").is_err());
        assert!(UserPassword::new(PasswordSize::Sixteen, b"a\0b").is_err());
        let short = UserPassword::new(PasswordSize::Sixteen, b"a").unwrap();
        let test = SetUserPassword { id: 3, operation: PasswordOperation::Test(short) };
        assert_eq!(test.request().data.len(), 18);
        let enable = SetUserPassword { id: 3, operation: PasswordOperation::Enable };
        assert_eq!(enable.request().data, [3, 1]);
    }

    #[tokio::test]
    async fn a_wrong_password_is_an_answer() {
        for (code, found) in [(0x00, Some(true)), (0x80, Some(false)), (0x81, Some(false)), (0xd4, None)] {
            let bmc = Fake::new(|_| refuse(CompletionCode(code)));
            let password = UserPassword::new(PasswordSize::Sixteen, b"secret").unwrap();
            assert_eq!(test_password(&bmc, 2, password).await.ok(), found, "{code:#x}");
        }
    }
}
