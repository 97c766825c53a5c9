"""Knights & Knaves as logic: statements, unique solutions, and a form that ignores names and wording.

Every inhabitant is a knight (always truthful) or a knave (always lying) and makes one statement about the roles of
the inhabitants. A puzzle is *proper* when exactly one assignment of roles makes every statement true for a knight and
false for a knave. The grammar (atoms, negated atoms, and binary `and`, `or`, `if … then`, `if and only if` over atoms)
is that of the K&K data of Logic-RL (arXiv 2502.14768).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from ...errors import InputError

CONNECTIVES = ("and", "or", "if", "iff")
FORMS = ("atom", "not", *CONNECTIVES)
_MAX_DRAWS = 10_000  # about one draw in three is proper, so this many failures mean that none is


@dataclass(frozen=True)
class Atom:
    """`person` is a knight (or, with `knight=False`, a knave)."""

    person: int
    knight: bool


@dataclass(frozen=True)
class Statement:
    """`form` is one of FORMS; `atom` and `not` have one part, the connectives two."""

    form: str
    parts: tuple[Atom, ...]

    def holds(self, roles: Sequence[bool]) -> bool:
        """Whether the statement is true where `roles[person]` says who is a knight."""
        first = self.parts[0]
        value = roles[first.person] == first.knight
        if self.form == "atom":
            return value
        if self.form == "not":
            return not value
        second = self.parts[1]
        other = roles[second.person] == second.knight
        match self.form:
            case "and":
                return value and other
            case "or":
                return value or other
            case "if":
                return not value or other
            case "iff":
                return value == other
        raise ValueError(f"unknown statement form {self.form!r}; known: {', '.join(FORMS)}")


@dataclass(frozen=True)
class Puzzle:
    """`statements[i]` is spoken by inhabitant `i`, whose name is `names[i]`."""

    names: tuple[str, ...]
    statements: tuple[Statement, ...]

    @property
    def size(self) -> int:
        return len(self.names)


# ------------------------------------------------------------------ solutions
# A set of assignments of roles is an integer of 2^size bits. Bit i stands for assignment i of `assignments(size)`.


@lru_cache(maxsize=16)
def assignments(size: int) -> tuple[tuple[bool, ...], ...]:
    """All 2^size assignments of roles, True for a knight: everybody a knight first, the last person's role changing
    fastest."""
    return tuple(itertools.product((True, False), repeat=size))


@lru_cache(maxsize=16)
def _role_sets(size: int) -> tuple[tuple[int, int], ...]:
    """For each person, the assignments in which they are a knave, and those in which they are a knight."""
    everything = (1 << 2**size) - 1
    sets = []
    for person in range(size):
        run = 2 ** (size - 1 - person)  # assignments in a row with the same role of this person
        knights = everything // ((1 << run) + 1)  # runs of ones and zeros in turn, ones first
        sets.append((everything ^ knights, knights))
    return tuple(sets)


def contradictions(statements: Sequence[Statement]) -> Iterator[int]:
    """For each speaker, the assignments in which what they say does not suit their role, as a set of bits."""
    sets = _role_sets(len(statements))
    everything = sets[0][0] | sets[0][1]
    for (_, knight), statement in zip(sets, statements, strict=True):
        first = statement.parts[0]
        holds = sets[first.person][first.knight]
        if statement.form == "not":
            holds ^= everything
        elif statement.form != "atom":
            second = statement.parts[1]
            other = sets[second.person][second.knight]
            match statement.form:
                case "and":
                    holds &= other
                case "or":
                    holds |= other
                case "if":
                    holds = (holds ^ everything) | other
                case "iff":
                    holds ^= other ^ everything
        yield holds ^ knight


def _consistent(statements: Sequence[Statement]) -> int:
    """The assignments in which every statement suits its speaker, as a set of bits."""
    consistent = (1 << 2 ** len(statements)) - 1
    for contradicted in contradictions(statements):
        consistent &= ~contradicted
        if not consistent:
            break
    return consistent


def solutions(statements: Sequence[Statement]) -> list[tuple[bool, ...]]:
    """Every consistent assignment, out of all 2^n: this is the proof of uniqueness."""
    everyone = assignments(len(statements))
    found, rest = [], _consistent(statements)
    while rest:
        lowest = rest & -rest
        found.append(everyone[lowest.bit_length() - 1])
        rest ^= lowest
    return found


# ------------------------------------------------------------------ the canonical form


@lru_cache(maxsize=2**14)
def truth_table(statement: Statement) -> tuple[tuple[int, ...], str]:
    """What a statement says, apart from its wording: the people whose roles matter, and its truth under their roles.

    The table has one character, 1 or 0, for each assignment of roles to these people, all knights first. Statements
    with the same meaning ("is not a knight" and "is a knave", "if" and "or") have the same people and table.
    """
    people = sorted({part.person for part in statement.parts})
    renamed = tuple(Atom(people.index(part.person), part.knight) for part in statement.parts)
    kept, table = _relative_table(Statement(statement.form, renamed), len(people))
    return tuple(people[index] for index in kept), table


@lru_cache(maxsize=256)
def _relative_table(statement: Statement, size: int) -> tuple[tuple[int, ...], str]:
    """`truth_table` of a statement about the first `size` people."""
    table = {roles: statement.holds(roles) for roles in itertools.product((True, False), repeat=size)}
    kept = [
        index
        for index in range(size)
        if any(table[roles] != table[(*roles[:index], False, *roles[index + 1 :])] for roles in table)
    ]
    rows = [value for roles, value in table.items() if all(roles[index] for index in range(size) if index not in kept)]
    return tuple(kept), "".join("1" if value else "0" for value in rows)


@lru_cache(maxsize=2**14)
def _tables(statement: Statement) -> tuple[tuple[int, ...], str, str, str]:
    """(people, table, table with the two people in the other order, the smaller of the two) of `truth_table`."""
    people, table = truth_table(statement)
    turned = table[0] + table[2] + table[1] + table[3] if len(people) == 2 else table
    return people, table, turned, min(table, turned)


def canonical_form(statements: Sequence[Statement]) -> str:
    """A key that two puzzles share whenever their statements have the same truth tables after the people are renamed.

    So names, the order of the people and the wording of a statement make no difference. Colour refinement: each
    person's colour, a hash, absorbs the table of the statement they make and of those that mention them, until the
    colours are stable. Distinct puzzles may share a key on rare occasions; a split made disjoint by it is then merely
    stricter than it had to be.
    """
    described = [_tables(statement) for statement in statements]
    colours = [""] * len(statements)
    for _ in range(max(len(statements), 2)):
        mentions: list[list[str]] = [[] for _ in statements]  # what is said about each person, and by what colour
        claims = []  # what each person says
        for speaker, (people, table, turned, smaller) in enumerate(described):
            colour = colours[speaker]
            if len(people) == 2:  # of the two colours the smaller comes first; * marks the person who is mentioned
                first, second = people
                a, b = colours[first], colours[second]
                if a < b:
                    of_first, of_second, claim = f"{a}*,{b}:{table}", f"{a},{b}*:{table}", f"{a},{b}:{table}"
                elif a > b:
                    of_first, of_second, claim = f"{b},{a}*:{turned}", f"{b}*,{a}:{turned}", f"{b},{a}:{turned}"
                else:
                    of_first, of_second, claim = f"{a}*,{a}:{table}", f"{a}*,{a}:{turned}", f"{a},{a}:{smaller}"
                mentions[first].append(f"{colour}:{of_first}")
                mentions[second].append(f"{colour}:{of_second}")
                claims.append(of_first if speaker == first else of_second if speaker == second else claim)
            elif people:
                of_person = f"{colours[people[0]]}*:{table}"
                mentions[people[0]].append(f"{colour}:{of_person}")
                claims.append(of_person if speaker == people[0] else f"{colours[people[0]]}:{table}")
            else:
                claims.append(f":{table}")
        refined = []
        for colour, claim, said in zip(colours, claims, mentions, strict=True):
            said.sort()
            text = f"{colour}|{claim}|{'|'.join(said)}"
            refined.append(blake2b(text.encode(), digest_size=8).hexdigest())
        colours = refined
    return blake2b("".join(sorted(colours)).encode(), digest_size=12).hexdigest()


# ------------------------------------------------------------------ random puzzles


@lru_cache(maxsize=2**14)
def _statement(form: str, *parts: tuple[int, bool]) -> Statement:
    return Statement(form, tuple(Atom(*part) for part in parts))


def _below(rng: random.Random, limit: int) -> int:
    """`rng.randrange(limit)`, and what `rng.choice` does, in a third of the time."""
    bits = limit.bit_length()
    number = rng.getrandbits(bits)
    while number >= limit:
        number = rng.getrandbits(bits)
    return number


def draw_statement(rng: random.Random, speaker: int, size: int, forms: Sequence[str]) -> Statement:
    """A random statement; a single claim is never about the speaker, two claims are about two people."""
    form = forms[_below(rng, len(forms))]
    if form in ("atom", "not"):
        other = _below(rng, size - 1)
        return _statement(form, (other + (other >= speaker), rng.random() < 0.5))
    first, second = _below(rng, size), _below(rng, size - 1)
    if second == first:
        second = size - 1  # the same two people as `rng.sample(range(size), 2)`
    return _statement(form, (first, rng.random() < 0.5), (second, rng.random() < 0.5))


def draw_puzzle(
    rng: random.Random, size: int, names: Sequence[str], forms: Sequence[str] = FORMS
) -> tuple[Puzzle, tuple[bool, ...]]:
    """A puzzle of `size` people with exactly one solution, and that solution.

    Statements are redrawn until the exhaustive check finds one solution, which about one draw in three has at any size.

    Raises:
        InputError: fewer names than people, a size outside 2–16, or forms from which no proper puzzle of this size
            arises (atoms alone never decide between two people, for example).
    """
    if not 2 <= size <= 16:
        raise InputError(f"a puzzle needs 2 to 16 people, not {size}")
    if len(names) < size:
        raise InputError(f"{size} people need as many names; only {len(names)} are given")
    forms = tuple(forms)
    for _ in range(_MAX_DRAWS):
        statements = tuple([draw_statement(rng, speaker, size, forms) for speaker in range(size)])
        consistent = _consistent(statements)
        if consistent and not consistent & (consistent - 1):  # one bit
            return Puzzle(tuple(rng.sample(list(names), size)), statements), solutions(statements)[0]
    raise InputError(
        f"task.forms={list(forms)}: no puzzle of {size} people with exactly one solution was found; allow more forms"
    )
