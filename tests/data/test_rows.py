"""Leaves and Merkle roots: fixed for good, since every digest ever committed depends on them."""

from __future__ import annotations

import hashlib

from keepsight.data import rows


def test_leaves_stay_what_they_were() -> None:
    member = {
        "sample_id": "s" * 32,
        "picture_id": "p" * 64,
        "split": "train",
        "group_key": "shop 1",
        "name": "äpfel/1.jpg",
        "meta": {"b": 1, "a": None},
        "seq": 7,
        "added_in": 3,
    }
    content = (
        '{"group":"shop 1","kind":"membership","meta":{"a":null,"b":1},"name":"äpfel/1.jpg",'
        f'"picture":"{"p" * 64}","sample":"{"s" * 32}","split":"train"}}'
    )
    assert rows.membership_leaf(member) == hashlib.sha256(b"\x00" + content.encode()).hexdigest()
    note = {"sample_id": "s", "value": {"label": "x"}, "author": "me", "origin": "import", "created_at": 5.0}
    content = '{"author":"me","kind":"annotation","origin":"import","sample":"s","value":{"label":"x"}}'
    assert rows.annotation_leaf(note) == hashlib.sha256(b"\x00" + content.encode()).hexdigest()


def test_merkle_root_is_that_of_rfc_6962() -> None:
    # The test vectors of the Certificate Transparency project for the trees of 0 to 8 leaves.
    inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    leaves = [hashlib.sha256(b"\x00" + bytes.fromhex(text)).hexdigest() for text in inputs]
    roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]
    assert [rows.merkle_root(leaves[:count]) for count in range(9)] == roots


def test_a_picture_has_one_sample_in_each_project() -> None:
    assert rows.sample_id("shop", "p") == rows.sample_id("shop", "p") != rows.sample_id("other", "p")
    assert len(rows.sample_id("shop", "p")) == 32
