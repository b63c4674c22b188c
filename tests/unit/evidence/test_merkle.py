"""Merkle trees: the vectors of RFC 9162's predecessor (Certificate Transparency's reference implementation)."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evidence.merkle import Frontier, Tree, leaf_hash, node_hash, root_from_proof, root_of

# The entries and roots of the reference implementation's tests, for trees of 0 to 8 entries.
ENTRIES = [
    bytes.fromhex(entry)
    for entry in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
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
# Its inclusion proofs, by index and size of the tree.
PROOFS = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


@pytest.mark.parametrize("size", range(9))
def test_roots(size: int) -> None:
    frontier = Frontier()
    for entry in ENTRIES[:size]:
        frontier.append(leaf_hash(entry))
    assert frontier.size == size and frontier.root().hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size"), PROOFS)
def test_inclusion_proofs(index: int, size: int) -> None:
    leaves = [leaf_hash(entry) for entry in ENTRIES[:size]]
    proof = Tree(leaves).inclusion_proof(index)
    assert [node.hex() for node in proof] == PROOFS[index, size]
    root = root_from_proof(leaves[index], index, size, proof)
    assert root is not None and root.hex() == ROOTS[size]


def recursive_root(entries: list[bytes]) -> bytes:
    """The definition of section 2.1.1."""
    if len(entries) < 2:
        return leaf_hash(entries[0]) if entries else hashlib.sha256().digest()
    split = 1
    while 2 * split < len(entries):
        split *= 2
    return node_hash(recursive_root(entries[:split]), recursive_root(entries[split:]))


@given(st.lists(st.binary(max_size=9), max_size=70), st.data())
def test_trees_of_any_size(entries: list[bytes], data: st.DataObject) -> None:
    leaves = [leaf_hash(entry) for entry in entries]
    root = root_of(leaves)
    assert root == recursive_root(entries)
    if not leaves:
        return
    index = data.draw(st.integers(0, len(leaves) - 1))
    proof = Tree(leaves).inclusion_proof(index)
    assert root_from_proof(leaves[index], index, len(leaves), proof) == root
    assert root_from_proof(leaf_hash(b"another entry"), index, len(leaves), proof) != root
    assert root_from_proof(leaves[index], index, len(leaves), [*proof, root]) is None
    assert root_from_proof(leaves[index], len(leaves), len(leaves), proof) is None
    if proof:
        assert root_from_proof(leaves[index], index, len(leaves), proof[:-1]) is None
        other = data.draw(st.integers(0, len(leaves) - 1))
        if leaves[other] != leaves[index]:
            assert root_from_proof(leaves[index], other, len(leaves), proof) != root


def test_an_index_outside_the_tree() -> None:
    with pytest.raises(IndexError, match="leaf 2: must be below the size of the tree"):
        Tree([b"", b""]).inclusion_proof(2)
