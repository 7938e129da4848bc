#include <string>

#include "../bigint/bigint.h"
#include "../common/pool.h"
#include "../common/quota.h"
#include "../compare/compare.h"
#include "../cpu/cpu.h"
#include "../galois/galois.h"
#include "../lattice/lattice.h"
#include "../pir/pir.h"
#include "../prf/prf.h"
#include "../ring/ring.h"
#include "check.h"

namespace py = pybind11;
using namespace mipp;

namespace {

py::tuple features() {
    int count;
    const CpuFeature* all = cpu_features(&count);
    py::list names;
    for (int i = 0; i < count; ++i) {
        if (all[i].present) names.append(all[i].name);
    }
    return py::tuple(names);
}

py::tuple levels() {
    py::list names;
    for (int i = 0; i <= static_cast<int>(cpu_best_level()); ++i) names.append(level_name(static_cast<Level>(i)));
    return py::tuple(names);
}

void set_level(const py::object& name) {
    if (!PyUnicode_Check(name.ptr())) bind::raise_dtype("a level is a str");
    const std::string text = py::cast<std::string>(name);
    Level level;
    if (!level_from_name(text.c_str(), &level)) bind::raise_cpu("unknown level; expected one of " + bind::level_list());
    if (cpu_set_level(level) != Status::ok) {
        bind::raise_cpu("this machine lacks level " + text + "; its best is " + level_name(cpu_best_level()));
    }
}

py::dict active() {
    py::dict tiers;
    tiers["ring"] = level_name(ring_tier());
    tiers["prf"] = level_name(prf_tier());
    tiers["galois"] = level_name(galois_tier());
    tiers["compare"] = level_name(compare_tier());
    tiers["pir"] = level_name(pir_tier());
    tiers["lattice"] = level_name(lattice_tier());
    tiers["bigint"] = level_name(bigint_tier());
    return tiers;
}

}  // namespace

void bind_cpu(py::module_& m) {
    m.def("cpu_features", &features);
    m.def("cpu_levels", &levels);
    m.def("cpu_level", [] { return level_name(cpu_level()); });
    m.def("cpu_set_level", &set_level, py::arg("name"));
    m.def("cpu_check_environment", &bind::require_cpu_environment);
    m.def("cpu_active", &active);
    // For tests of the translation.
    m.def("throw_status", [](int status) { bind::throw_status(static_cast<Status>(status)); }, py::arg("status"));
    m.def("default_threads", [] { return bind::require_threads(py::none()); });
    // For tests: with the files of control groups below another root.
    m.def("quota_processors", [](const std::string& root) { return quota_processors(root.c_str()); }, py::arg("root"));
}
