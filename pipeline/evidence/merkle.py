"""Merkle trees as in RFC 9162, section 2.1 (SHA-256).  Pure.

In: entries, as bytes.  Out: the root of any number of them, and proofs that an entry is in a tree of that root.
"""

import hashlib
from collections.abc import Sequence


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of an entry: a leaf of the tree."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node from those of its children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: the roots of its complete subtrees, the largest first.

    There are as many as `size` has bits that are set, so that neither a further leaf nor the root needs the others.
    """

    def __init__(self) -> None:
        self.size = 0
        self._roots: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """Add a leaf by its hash."""
        self._roots.append(leaf)
        size = self.size
        while size & 1:
            right, left = self._roots.pop(), self._roots.pop()
            self._roots.append(node_hash(left, right))
            size >>= 1
        self.size += 1

    def root(self) -> bytes:
        """Return the root of the tree; that of an empty tree is the hash of nothing."""
        if not self._roots:
            return hashlib.sha256().digest()
        root = self._roots[-1]
        for left in reversed(self._roots[:-1]):
            root = node_hash(left, root)
        return root


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root of a tree of these leaves' hashes."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


class Tree:
    """A tree of leaves' hashes, for proofs; roots of subtrees that several proofs need are computed once."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._leaves = leaves
        self._roots: dict[tuple[int, int], bytes] = {}

    def inclusion_proof(self, index: int) -> list[bytes]:
        """Return the inclusion proof of a leaf, as in section 2.1.3.1.  Raise IndexError."""
        start, end = 0, len(self._leaves)
        if not start <= index < end:
            raise IndexError(f"leaf {index}: must be below the size of the tree ({end})")
        proof = list[bytes]()
        while end - start > 1:
            middle = start + (1 << (end - start - 1).bit_length() - 1)  # the largest power of two below the size
            if index < middle:
                proof.append(self._root(middle, end))
                end = middle
            else:
                proof.append(self._root(start, middle))
                start = middle
        return proof[::-1]

    def _root(self, start: int, end: int) -> bytes:
        if (start, end) not in self._roots:
            self._roots[start, end] = root_of(self._leaves[start:end])
        return self._roots[start, end]


def root_from_proof(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes | None:
    """Return the root of a tree of `size` in which this leaf has this proof, as in section 2.1.3.2.

    None: the proof does not fit index and size.
    """
    if not 0 <= index < size:
        return None
    node, last, root = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return None
        if node & 1 or node == last:
            root = node_hash(sibling, root)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        node, last = node >> 1, last >> 1
    return root if last == 0 else None
