//! Recorded sessions of two implementations that nobody here wrote.
//!
//! Suite 3: ipmitool 1.8.19 with OpenIPMI's `ipmi_sim`; suite 17: the same ipmitool with pyghmi 1.6.19's BMC, its hash
//! set to SHA-256. Recorded on loopback by a relay; the keys are those that `ipmitool -vvvvv` printed. Both checked
//! every code of the other. The primitives have vectors of RFC 2202, RFC 4231 and NIST SP 800-38A.

use aes::cipher::KeyInit;

use super::{
    crypto::{Exchange, Keys, SessionKey},
    handshake::{OpenRequest, OpenResponse, Rakp1, Rakp2, Rakp3, Rakp4},
    message::Message,
    packet::{self, Header, PayloadKind},
    rmcp,
    suite::Suite,
};

struct Recording {
    suite: Suite,
    password: &'static [u8],
    session_key: &'static str,
    k1: &'static str,
    k2: &'static str,
    /// Open Session Request and Response, RAKP 1 to 4: whole datagrams.
    handshake: [&'static str; 6],
    /// Set Session Privilege Level, Get Device ID and their answers.
    packets: [&'static str; 4],
}

const SUITE_3: Recording = Recording {
    suite: Suite::S3,
    password: b"test",
    session_key: "873c1f647ea5d8d7f5ae67347b54dd2b3c66acca",
    k1: "8d83afdfdcc35ade8c7ba83d0493766763f85e91",
    k2: "893d93dc8cf827a89eed5823eba3fb1875f86f1e",
    handshake: [
        "0600ff0706100000000000000000200000000000a4a3a2a000000008010000000100000801000000020000080100\
         0000",
        "0600ff0706110000000000000000240000000000a4a3a2a082000000000000080100000001000008010000000200\
         000801000000",
        "0600ff070612000000000000000023000000000082000000e6c962ba819ceda1f13044b1451c3266140000076970\
         6d69757372",
        "0600ff07061300000000000000003c0000000000a4a3a2a0bf375e76c11b5d082efbda5367186bf2a123456789ab\
         cdefa123456789abcdef05ea70516467a81e10509d6e6c13edf323ac1537",
        "0600ff07061400000000000000001c00000000008200000089a3bc446bc0133973faa804741f406ec431ec2e",
        "0600ff0706150000000000000000140000000000a4a3a2a03532b06b007ca6a8345147e0",
    ],
    packets: [
        "0600ff0706c0820000000300000020004b00f951112900d653990b349993eef1882e798cdad79267f29fbbe43b82\
         cf81ffff020778a4c6d0456dad7a35b61f8d",
        "0600ff0706c0a4a3a2a0010000002000eadfece7de0f8e6a957f76a1311671a12679b218cb96fe4adf2bb97022e8\
         af4bffff0207966b04fa889a9da558b051a8",
        "0600ff0706c08200000005000000200087028be58fd08cc4e169e7602ef0e21bd3d927548e3904614bcd0a6a99b4\
         5f48ffff02074d1f07bc82d3cc65d02158ba",
        "0600ff0706c0a4a3a2a003000000300076ab5771fab6af12e64bed7dd79f19ba7b8dfc32460bd600d9df2e5c98c7\
         2da1bdcc4231ae1b11fc72d494c5a03e34d0ffff0207053914fc29f92d0c5e94cf7a",
    ],
};

const SUITE_17: Recording = Recording {
    suite: Suite::S17,
    password: b"secret-17",
    session_key: "3812c87fa7a7838f23848326736864498b563b54eb6f6239b1008330fab592a0",
    k1: "71408f4a0d48806750e51d014dc8599b4d8cc08d5ae8f6ebea0049560904592c",
    k2: "9a1313b145fb9825f23a66f5e203bcc4614142e88df20cf29bad5b02e151c81e",
    handshake: [
        "0600ff0706100000000000000000200000000000a4a3a2a000000008030000000100000804000000020000080100\
         0000",
        "0600ff0706110000000000000000240000000400a4a3a2a0f506f2c8000000080300000001000008040000000200\
         000801000000",
        "0600ff0706120000000000000000210000000000f506f2c8cee392fb713f9e7d426c035f89951666140000054144\
         4d494e",
        "0600ff0706130000000000000000480000000000a4a3a2a080966645a2add585249523e7fd2fb94e54d1b990dda9\
         4221a61546066fe77dc760446b21faf099b9608bb56eadce0e58e81190861b9af43acd5dbe2104bca885",
        "0600ff0706140000000000000000280000000000f506f2c871dd1a5e5c6fdfdd732bc0d4d15d55102002d0016482\
         07a7cf8a193d59e86f07",
        "0600ff0706150000000000000000180000000000a4a3a2a0420f07b87165774846271752f5f8b226",
    ],
    packets: [
        "0600ff0706c0f506f2c80300000020005cf32fa02619cd921a1206e96fb0443886ca1760875bc9a1673beb967ce4\
         0089ffff0207beb27160b2296acbf1601144a1b32d8b",
        "0600ff0706c0a4a3a2a00100000020004cd19e55cab5bcd227e4b6f8e8acccad6103cb029706d77f2c08a56903d6\
         6517ffff0207bb7014392ddba9058a0e99e094b8eab9",
        "0600ff0706c0f506f2c8050000002000cd2cbf81ce00397ed41f30ff7e07d0429d236190b358ba8ff150fb75e265\
         da16ffff02072fe2dcbcca779a0a4a90641639c69b7b",
        "0600ff0706c0a4a3a2a00300000030003a3e0f06a9a0483a7c42ad182c6a168040b2a3c1a1d2395680810fc264aa\
         84bf02759973465b01f3e6b6f4cd7186989dffff0207d4e1e9ab6a7c6d0bd33968fc7d628661",
    ],
};

/// The payload of a recorded datagram, opened with `keys`.
fn open(datagram: &str, keys: Option<&Keys>) -> (Header, Vec<u8>) {
    let mut bytes = hex::decode(datagram).unwrap();
    assert_eq!(rmcp::decode(&bytes), Ok(rmcp::Class::Ipmi));
    let (header, payload) = packet::open(&mut bytes[rmcp::HEADER..], keys).unwrap();
    (header, payload.to_vec())
}

/// Replays a recording: every message is read, and written again as it was; every code is computed again.
fn replay(recording: &Recording) -> SessionKey {
    let payloads = recording.handshake.map(|datagram| open(datagram, None));
    let [request, response, rakp1, rakp2, rakp3, rakp4] =
        payloads.each_ref().map(|(_, payload)| &payload[..]);
    let request = OpenRequest::decode(request).unwrap();
    let response = OpenResponse::decode(response).unwrap().unwrap();
    let rakp1 = Rakp1::decode(rakp1).unwrap();
    let rakp2 = Rakp2::decode(rakp2).unwrap().unwrap();
    let rakp3 = Rakp3::decode(rakp3).unwrap();
    let rakp4 = Rakp4::decode(rakp4).unwrap().unwrap();
    assert_eq!(request.algorithms, recording.suite.algorithms());
    assert_eq!(response.algorithms, recording.suite.algorithms());

    let mut again = [(); 6].map(|()| Vec::new());
    let [a, b, c, d, e, f] = &mut again;
    request.encode(a);
    response.encode(b);
    rakp1.encode(c);
    rakp2.encode(d);
    rakp3.encode(e);
    rakp4.encode(f);
    for ((header, payload), (written, recorded)) in payloads.iter().zip(again.iter().zip(recording.handshake))
    {
        // ipmi_sim gives reserved bytes of its Open Session Response a value.
        if header.kind != PayloadKind::OPEN_RESPONSE {
            assert_eq!(written, payload);
        }
        let mut datagram = Vec::new();
        packet::seal(*header, payload, None, &[0; 16], &mut datagram).unwrap();
        assert_eq!(hex::encode(datagram), recorded);
    }

    let exchange = Exchange {
        suite: recording.suite,
        console_session: request.console_session,
        managed_session: response.managed_session,
        console_random: &rakp1.console_random,
        managed_random: &rakp2.managed_random,
        guid: &rakp2.guid,
        role: rakp1.role,
        user: rakp1.user,
    };
    assert!(exchange.rakp2(recording.password).matches(rakp2.code));
    assert!(!exchange.rakp2(b"another").matches(rakp2.code));
    assert!(exchange.rakp3(recording.password).matches(rakp3.code));
    let key = exchange.session_key(recording.password, None);
    assert!(exchange.rakp4(&key).matches(rakp4.check));
    assert_eq!(hex::encode(key.bytes()), recording.session_key);
    assert_eq!(hex::encode(key.derive(1).as_slice()), recording.k1);
    assert_eq!(hex::encode(key.derive(2).as_slice()), recording.k2);
    key
}

fn replay_packets(recording: &Recording) {
    let keys = Keys::new(&replay(recording));
    let codes = recording.packets.map(|recorded| {
        let (header, payload) = open(recorded, Some(&keys));
        assert!(header.encrypted && header.authenticated);
        let message = Message::decode(&payload).unwrap();
        let mut written = Vec::new();
        message.encode(&mut written);
        assert_eq!(written, payload);
        // With the recorded IV the very same datagram comes out again.
        let bytes = hex::decode(recorded).unwrap();
        let iv = bytes[16..32].try_into().unwrap();
        let mut datagram = Vec::new();
        packet::seal(header, &payload, Some(&keys), &iv, &mut datagram).unwrap();
        assert_eq!(hex::encode(datagram), recorded);
        for bit in 8 * rmcp::HEADER..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // Without its "authenticated" bit a packet opens, but it no longer claims what a session asks for.
            if let Ok((header, _)) = packet::open(&mut damaged[rmcp::HEADER..], Some(&keys)) {
                assert!(!header.authenticated, "bit {bit}");
            }
        }
        (message.net_fn, message.code)
    });
    assert_eq!(codes, [(6, 0x3b), (7, 0x3b), (6, 1), (7, 1)]);
}

#[test]
fn suite_3_as_ipmitool_and_ipmi_sim_speak_it() {
    replay_packets(&SUITE_3);
}

#[test]
fn suite_17_as_ipmitool_and_pyghmi_speak_it() {
    replay_packets(&SUITE_17);
}

#[test]
fn keys_of_one_suite_do_not_open_packets_of_the_other() {
    let keys = Keys::new(&replay(&SUITE_3));
    let mut bytes = hex::decode(SUITE_17.packets[0]).unwrap();
    assert!(packet::open(&mut bytes[rmcp::HEADER..], Some(&keys)).is_err());
}

#[test]
fn hmac_vectors_of_rfc_2202_and_rfc_4231() {
    use hmac::{Hmac, Mac};
    // Test case 2 of both.
    let (key, data) = (b"Jefe", b"what do ya want for nothing?");
    let mut sha1 = Hmac::<sha1::Sha1>::new_from_slice(key).unwrap();
    sha1.update(data);
    assert_eq!(hex::encode(sha1.finalize().into_bytes()), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    let mut sha256 = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
    sha256.update(data);
    assert_eq!(
        hex::encode(sha256.finalize().into_bytes()),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
}

#[test]
fn aes_vector_of_sp_800_38a() {
    use aes::cipher::{BlockModeEncrypt, InnerIvInit};
    // F.2.1, CBC-AES128, first block.
    let key: [u8; 16] = hex::decode("2b7e151628aed2a6abf7158809cf4f3c").unwrap().try_into().unwrap();
    let iv: [u8; 16] = hex::decode("000102030405060708090a0b0c0d0e0f").unwrap().try_into().unwrap();
    let mut block = hex::decode("6bc1bee22e409f96e93d7e117393172a").unwrap();
    let aes = aes::Aes128Enc::new((&key).into());
    let (blocks, _) = aes::cipher::Block::<aes::Aes128Enc>::slice_as_chunks_mut(&mut block);
    cbc::Encryptor::<&aes::Aes128Enc>::inner_iv_init(&aes, (&iv).into()).encrypt_blocks(blocks);
    assert_eq!(hex::encode(block), "7649abac8119b246cee98e9b12e9197d");
}

#[test]
fn padding_is_that_of_table_13_20_and_checked() {
    let keys = Keys::new(&replay(&SUITE_3));
    for length in 0..40 {
        let payload = vec![0xaa; length];
        let mut sealed = Vec::new();
        keys.encrypt(&payload, &[9; 16], &mut sealed);
        assert_eq!(sealed.len() % 16, 0);
        assert!(sealed.len() <= 16 + length + 16);
        assert_eq!(keys.decrypt(&mut sealed.clone()), Ok(&payload[..]));
        assert!(keys.decrypt(&mut sealed.clone()[..sealed.len() - 1]).is_err());
        let last = sealed.len() - 1;
        sealed[last] ^= 1;
        assert_ne!(keys.decrypt(&mut sealed), Ok(&payload[..]));
    }
    assert!(keys.decrypt(&mut [0; 16]).is_err());
}
