// The extension module mipp._native._core: each family binds itself.
#include <pybind11/pybind11.h>

namespace py = pybind11;

void bind_cpu(py::module_& m);
void bind_ring(py::module_& m);
void bind_prf(py::module_& m);
void bind_galois(py::module_& m);
void bind_compare(py::module_& m);
void bind_bigint(py::module_& m);
void bind_audit(py::module_& m);
void bind_pir(py::module_& m);
void bind_lattice(py::module_& m);
void bind_c_api(py::module_& m);

PYBIND11_MODULE(_core, m) {
    m.doc() = "Native kernels of mipp.";
    bind_cpu(m);
    bind_ring(m);
    bind_prf(m);
    bind_galois(m);
    bind_compare(m);
    bind_bigint(m);
    bind_audit(m);
    bind_pir(m);
    bind_lattice(m);
    bind_c_api(m);
}
