// Carries out the tile instructions of AMX-INT8 on a processor that has AVX-512 but no AMX: each of them is an invalid
// opcode there, and the handler of that signal decodes it, does what it says and goes on behind it. So the very object
// code of the amx tier is tested on such machines, if slowly.
//
//   g++ -std=c++17 -O3 -mavx2 -shared -fPIC amx_emulator.cpp -o amx_emulator.so
//   LD_PRELOAD=./amx_emulator.so MIPP_CPU=amx pytest tests/kernels
//
// The library sees mipp_amx_emulator and then takes AMX as present. What real hardware would refuse (no configuration,
// a bad one, a tile larger than configured) ends the process with a line on standard error. As documented in Intel's
// Software Developer's Manual, volume 2, "Instruction Set Reference".
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>

namespace {

struct Tiles {
    bool configured = false;
    std::uint8_t config[64] = {};
    std::uint8_t data[8][16][64] = {};

    int rows(int t) const { return config[48 + t]; }
    int bytes(int t) const { return config[16 + 2 * t] | config[17 + 2 * t] << 8; }
};

thread_local Tiles tiles;
struct sigaction before;

[[noreturn]] void refuse(const char* what) {
    char line[128];
    const int n = std::snprintf(line, sizeof line, "AMX emulator: %s\n", what);
    if (n > 0 && write(2, line, static_cast<std::size_t>(n)) < 0) _exit(98);
    _exit(99);
}

void require(bool good, const char* what) {
    if (!good) refuse(what);
}

// The general registers in the order of their numbers in instructions.
constexpr int registers[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                               REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

struct Instruction {
    const std::uint8_t* at;
    const greg_t* general;
    bool r, x, b;
    int vvvv, pp;
    std::uint8_t opcode, mod, reg, rm;
    // of a memory operand
    std::uint64_t address = 0;
    std::int64_t index = 0;
    bool has_index = false;
    const std::uint8_t* next = nullptr;

    std::int64_t general_of(int number) const { return general[registers[number]]; }

    // False: no three-byte VEX instruction of the map that AMX is in.
    bool decode() {
        if (at[0] != 0xc4 || (at[1] & 0x1f) != 2 || (at[2] & 0x84) != 0) return false;
        r = !(at[1] & 0x80), x = !(at[1] & 0x40), b = !(at[1] & 0x20);
        vvvv = ~at[2] >> 3 & 15, pp = at[2] & 3;
        opcode = at[3];
        mod = at[4] >> 6, reg = at[4] >> 3 & 7, rm = at[4] & 7;
        next = at + 5;
        if (mod == 3) return true;
        std::int64_t base = 0;
        bool no_base = false, relative = false;
        if (rm == 4) {
            const std::uint8_t sib = *next++;
            const int number = (sib >> 3 & 7) | x << 3;
            has_index = number != 4;
            if (has_index) index = general_of(number) * (std::int64_t{1} << (sib >> 6));
            no_base = (sib & 7) == 5 && mod == 0;
            if (!no_base) base = general_of((sib & 7) | b << 3);
        } else {
            relative = rm == 5 && mod == 0;
            if (!relative) base = general_of(rm | b << 3);
        }
        std::int32_t displacement = 0;
        if (mod == 1) {
            displacement = static_cast<std::int8_t>(*next++);
        } else if (mod == 2 || no_base || relative) {
            std::memcpy(&displacement, next, 4);
            next += 4;
        }
        if (relative) base = reinterpret_cast<std::int64_t>(next);
        address = static_cast<std::uint64_t>(base + displacement);
        return true;
    }
};

void configure(const Instruction& i) {
    std::memcpy(tiles.config, reinterpret_cast<const void*>(i.address + static_cast<std::uint64_t>(i.index)), 64);
    std::memset(tiles.data, 0, sizeof tiles.data);
    tiles.configured = tiles.config[0] != 0;
    require(tiles.config[0] <= 1, "palette above 1");
    for (int t = 0; t < 8; ++t) {
        require(tiles.rows(t) <= 16 && tiles.bytes(t) <= 64, "a tile configured too large");
        require((tiles.rows(t) == 0) == (tiles.bytes(t) == 0), "a tile with rows or columns only");
    }
    for (int n = 2; n < 16; ++n) require(tiles.config[n] == 0, "reserved bytes of the configuration are not zero");
}

void require_tile(int t) { require(tiles.configured && tiles.rows(t) > 0, "a tile that is not configured"); }

void load(const Instruction& i) {
    require_tile(i.reg);
    require(i.rm == 4, "a tile's address without an index");
    std::memset(tiles.data[i.reg], 0, sizeof tiles.data[i.reg]);
    for (int n = 0; n < tiles.rows(i.reg); ++n) {
        const auto from = i.address + static_cast<std::uint64_t>(i.has_index ? i.index * n : 0);
        std::memcpy(tiles.data[i.reg][n], reinterpret_cast<const void*>(from),
                    static_cast<std::size_t>(tiles.bytes(i.reg)));
    }
}

void store(const Instruction& i) {
    require_tile(i.reg);
    require(i.rm == 4, "a tile's address without an index");
    for (int n = 0; n < tiles.rows(i.reg); ++n) {
        const auto to = i.address + static_cast<std::uint64_t>(i.has_index ? i.index * n : 0);
        std::memcpy(reinterpret_cast<void*>(to), tiles.data[i.reg][n], static_cast<std::size_t>(tiles.bytes(i.reg)));
    }
}

// Tile reg += tile rm times tile vvvv: sums of four byte products into 32-bit lanes that wrap.
void multiply(const Instruction& i, bool left_signed, bool right_signed) {
    const int sum = i.reg, left = i.rm | i.b << 3, right = i.vvvv;
    require(left < 8 && right < 8 && sum != left && sum != right && left != right, "tiles of a product must differ");
    for (const int t : {sum, left, right}) require_tile(t);
    require(tiles.rows(sum) == tiles.rows(left) && tiles.bytes(left) == 4 * tiles.rows(right) &&
                tiles.bytes(sum) == tiles.bytes(right),
            "tiles of a product that do not fit");
    const auto value = [](std::uint8_t byte, bool is_signed) {
        return static_cast<std::uint32_t>(is_signed ? static_cast<std::int8_t>(byte) : static_cast<int>(byte));
    };
    const int width = tiles.bytes(sum) / 4, depth = 4 * tiles.rows(right);
    std::uint32_t wide[64][16] = {};
    for (int k = 0; k < depth; ++k) {
        for (int n = 0; n < width; ++n) wide[k][n] = value(tiles.data[right][k / 4][4 * n + k % 4], right_signed);
    }
    for (int m = 0; m < tiles.rows(sum); ++m) {
        std::uint32_t total[16];
        std::memcpy(total, tiles.data[sum][m], 64);
        for (int k = 0; k < depth; ++k) {
            const std::uint32_t factor = value(tiles.data[left][m][k], left_signed);
            for (int n = 0; n < 16; ++n) total[n] += factor * wide[k][n];
        }
        std::memcpy(tiles.data[sum][m], total, static_cast<std::size_t>(4 * width));
    }
}

// False: another invalid instruction.
bool carry_out(const Instruction& i) {
    enum { none, p66, pf3, pf2 };
    if (i.opcode == 0x49 && i.mod != 3 && i.reg == 0) {
        if (i.pp == none) {
            configure(i);
        } else if (i.pp == p66) {
            std::memcpy(reinterpret_cast<void*>(i.address), tiles.config, 64);
        } else {
            return false;
        }
    } else if (i.opcode == 0x49 && i.mod == 3 && i.pp == none && i.reg == 0 && i.rm == 0) {
        tiles = Tiles();
    } else if (i.opcode == 0x49 && i.mod == 3 && i.pp == pf2) {
        require_tile(i.reg);
        std::memset(tiles.data[i.reg], 0, sizeof tiles.data[i.reg]);
    } else if (i.opcode == 0x4b && i.mod != 3 && (i.pp == pf2 || i.pp == p66)) {
        load(i);
    } else if (i.opcode == 0x4b && i.mod != 3 && i.pp == pf3) {
        store(i);
    } else if (i.opcode == 0x5e && i.mod == 3) {
        multiply(i, i.pp == pf2 || i.pp == pf3, i.pp == pf2 || i.pp == p66);
    } else {
        return false;
    }
    return true;
}

void handle(int, siginfo_t*, void* context) {
    auto& machine = static_cast<ucontext_t*>(context)->uc_mcontext;
    Instruction i{};
    i.at = reinterpret_cast<const std::uint8_t*>(machine.gregs[REG_RIP]);
    i.general = machine.gregs;
    if (i.decode() && carry_out(i)) {
        machine.gregs[REG_RIP] = reinterpret_cast<greg_t>(i.next);
    } else {
        sigaction(SIGILL, &before, nullptr);  // the instruction is tried again, and then it is an error
    }
}

__attribute__((constructor)) void install() {
    struct sigaction action = {};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGILL, &action, &before);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void mipp_amx_emulator() {}
