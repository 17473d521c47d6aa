"""Owns reading a GPU's machine code (SASS) as nvdisasm lists it: registers, spills, what a kernel's main loop costs.

The main loop is the innermost one with 128-bit global loads and stores (loads alone, where a kernel stores nothing
wide). Its common path is the cheapest of the ways once around that store all there is to store, as wide as possible:
what lies beside it is a slow path. It must not know what a kernel computes.
"""

import itertools
import re
from dataclasses import dataclass, field

CALL_COST = 1000  # of a subroutine: a slow path, unless there is no way around it, and then nobody may overlook it


@dataclass
class Instruction:
    address: int
    guard: str  # "@!P0", or ""
    opcode: str  # "LDG.E.EF.128"
    operands: str
    control: int = 0  # of nvdisasm -hex: what the assembler decided; NVIDIA documents none of it

    @property
    def board(self):
        """The scoreboard (0 to 5) that says when its result is there; 7: none."""
        return self.control >> 5 & 7 if self.control else 7

    def waits_for(self, board):
        return bool(self.control >> 11 & 1 << board)

    @property
    def wide(self):
        return ".128" in self.opcode

    @property
    def load(self):
        return self.opcode.startswith(("LDG", "LDGSTS"))

    @property
    def store(self):
        return self.opcode.startswith("STG")

    @property
    def fetch(self):
        """Asks for memory to be brought into L2."""
        return self.opcode.startswith(("UBLKPF", "CCTL.E.PF2"))

    @property
    def local(self):
        return self.opcode.startswith(("LDL", "STL"))

    @property
    def wide_store(self):
        return self.store and self.wide

    @property
    def stored(self):
        """Bytes per thread."""
        width = re.search(r"\.[USB]?(8|16|64|128)\b", self.opcode)
        return (int(width[1]) if width else 32) // 8 if self.store else 0

    @property
    def cost(self):
        if self.opcode.startswith("CALL") and not self.guard:
            return CALL_COST
        return self.opcode != "NOP"


@dataclass
class Block:
    """Instructions that run one after the other, and the numbers of the blocks that may follow."""

    instructions: list
    following: list = field(default_factory=list)

    def total(self, name):
        return sum(getattr(i, name) for i in self.instructions)

    def has(self, kind):
        return any(getattr(i, kind) and i.wide for i in self.instructions)


@dataclass
class Loop:
    """The common path once around."""

    instructions: int
    spills: int  # accesses of local memory
    accesses: int  # global loads and stores
    wide_loads: int
    wide_stores: int
    fetches: int  # requests to bring memory into L2
    ahead: int  # instructions from a global load to the first that waits for it, or for what shares its scoreboard


@dataclass
class Kernel:
    name: str
    registers: int
    frame: int  # bytes of stack
    spills: int  # accesses of local memory
    code: int  # instructions, all paths
    loops: list


def kernels(listing):
    """Every kernel of nvdisasm's full listing of a cubin."""
    numbers = dict(declared(listing))
    result = []
    for section in re.split(r"^//-----", listing, flags=re.M):
        start = re.search(r"^\.text\.(\S+):\n", section, flags=re.M)
        if start is None:
            continue
        name, text = start[1], section[start.end() :]
        instructions, labels = parse(text)
        loops = main_loops(basic_blocks(instructions, labels))
        registers, frame = (numbers[what, name] for what in ("REGCOUNT", "FRAME_SIZE"))
        result.append(Kernel(name, registers, frame, sum(i.local for i in instructions), len(instructions), loops))
    return result


def declared(listing):
    """((REGCOUNT or FRAME_SIZE, kernel), number) of the attributes."""
    what = name = None
    for line in listing.splitlines():
        if attribute := re.search(r"EIATTR_(\w+)$", line):
            what, name = attribute[1], None
        elif what in ("REGCOUNT", "FRAME_SIZE") and (
            entry := re.search(r"\.word\s+(?:index@\((\S+)\)|0x([0-9a-f]+))$", line)
        ):
            if entry[1]:
                name = entry[1]
            elif name:
                yield (what, name), int(entry[2], 16)
                what = None


def parse(text):
    """The instructions of a section, and {label: address}."""
    instructions, labels, waiting = [], {}, []
    for line in text.splitlines():
        if label := re.match(r"(\S+):$", line):
            waiting.append(label[1])
        elif code := re.match(r"\s+/\*([0-9a-f]+)\*/\s+(?:(@!?\w+)\s+)?([A-Z][\w.]*)\s*(.*?)\s*;", line):
            address = int(code[1], 16)
            labels.update(dict.fromkeys(waiting, address))
            waiting = []
            instructions.append(Instruction(address, code[2] or "", code[3], code[4]))
        elif half := re.match(r"\s+/\* 0x([0-9a-f]{16}) \*/$", line):  # the upper one: the lower is on the line above
            instructions[-1].control = int(half[1], 16) >> 41
    return instructions, labels


def target_of(instruction, labels):
    label = re.search(r"`\((\S+?)\)", instruction.operands)
    return labels.get(label[1]) if label else None


def successors(instructions, labels):
    """{address: addresses that may run next}, for every instruction."""
    following, reconverge = {}, {}
    for i, after in zip(instructions, [*instructions[1:], None], strict=True):
        following[i.address] = [after.address] if after else []
        name = i.opcode.split(".")[0]
        target = target_of(i, labels)
        barrier = i.operands.split(",")[0]
        if name == "BSSY":
            reconverge[barrier] = target
        elif name == "BSYNC":  # on to where its BSSY says, which as a rule is the next instruction
            if (reconverge.get(barrier) or 0) > i.address:
                following[i.address] = [reconverge[barrier]]
        elif name in ("EXIT", "RET", "BRX", "JMX", "KILL"):
            if not i.guard:
                following[i.address] = []
        elif target is not None and (name in ("BRA", "JMP") or (name == "CALL" and i.guard)):
            conditional = i.guard or "," in i.operands.split("`")[0]
            following[i.address] = [target, *(following[i.address] if conditional else [])]
    return following


def basic_blocks(instructions, labels):
    if not instructions:
        return []
    following = successors(instructions, labels)
    addresses = [i.address for i in instructions]
    starts = {addresses[0], *labels.values()}
    for address, after in itertools.pairwise(addresses):
        if following[address] != [after]:
            starts.update([after, *following[address]])
    blocks, number = [], {}
    for i in instructions:
        if i.address in starts:
            number[i.address] = len(blocks)
            blocks.append(Block([]))
        blocks[-1].instructions.append(i)
    for block in blocks:
        block.following = [number[a] for a in following[block.instructions[-1].address]]
    return blocks


def dominators(blocks):
    """{block: blocks on every way to it}, of those that the entry reaches."""
    reached, waiting = set(), [0]
    while waiting:
        b = waiting.pop()
        if b not in reached:
            reached.add(b)
            waiting += blocks[b].following
    before = {b: [a for a in reached if b in blocks[a].following] for b in reached}
    above = {b: set(reached) for b in reached}
    above[0] = {0}
    changed = True
    while changed:
        changed = False
        for b in sorted(reached - {0}):
            new = set.intersection(*(above[a] for a in before[b])) | {b}
            if new != above[b]:
                above[b], changed = new, True
    return above, before


def natural_loops(blocks):
    """{head: the blocks of its loop}, and the set of edges that close a loop."""
    above, before = dominators(blocks)
    loops, closing = {}, set()
    for tail in above:
        for head in blocks[tail].following:
            if head in above[tail]:
                closing.add((tail, head))
                body, waiting = loops.setdefault(head, {head}), [tail]
                while waiting:
                    b = waiting.pop()
                    if b not in body:
                        body.add(b)
                        waiting += before[b]
    return loops, closing


def main_loops(blocks):
    if not blocks:
        return []
    loops, closing = natural_loops(blocks)

    def having(*kinds):
        return {h: body for h, body in loops.items() if all(any(blocks[b].has(k) for b in body) for k in kinds)}

    wide = having("load", "store") or having("load")
    inner = [h for h in wide if not any(wide[o] < wide[h] for o in wide)]
    paths = [common_path(blocks, head, wide[head], closing) for head in sorted(inner)]
    return [p for p in paths if p is not None]


def common_path(blocks, head, body, closing):
    """The cheapest of the ways from the head back to it that store most, as wide as any, and load 128 bits at once."""
    order, seen = [], set()

    def visit(b):
        seen.add(b)
        for a in blocks[b].following:
            if a in body and a not in seen and (b, a) not in closing:
                visit(a)
        order.append(b)

    visit(head)
    # From each block to the end of the round: (wide stores, bytes stored, has a wide load, -cost) and
    # the way; the best for each "has".
    best = {}
    for b in order:
        ends = [(0, 0, False, 0, ())] if (b, head) in closing else []
        for a in blocks[b].following:
            if a in body and (b, a) not in closing:
                ends += best.get(a, {}).values()
        here = blocks[b]
        choices = {}
        for wide, stored, loads, cost, way in ends:
            wide, stored = wide + here.total("wide_store"), stored + here.total("stored")
            total = (wide, stored, loads or here.has("load"), cost - here.total("cost"), (b, *way))
            choices[total[2]] = max(total, choices.get(total[2], total))
        best[b] = choices
    if not best[head]:
        return None
    way = max(best[head].values())[4]
    path = [i for b in way for i in blocks[b].instructions]
    return Loop(
        instructions=sum(i.cost for i in path),
        spills=sum(i.local for i in path),
        accesses=sum(i.load or i.store for i in path),
        wide_loads=sum(i.load and i.wide for i in path),
        wide_stores=sum(i.store and i.wide for i in path),
        fetches=sum(i.fetch for i in path),
        ahead=ahead(path),
    )


def ahead(path):
    """The least of all global loads in a loop, of which the round after this one is the same again."""
    rounds = path * 2
    loads = [k for k, i in enumerate(path) if i.load and i.board < 6]
    waits = [next((n for n, i in enumerate(rounds[k + 1 :]) if i.waits_for(path[k].board)), len(path)) for k in loads]
    return min(waits, default=0)
