# Owns what goes into the Python wheel: the libraries, under names of their own, and a bill of materials (PEP 770, CycloneDX).
# It must not know how they are built.

# So that the wheel's copy never stands in for a libadamw.so.1 of the system.
set_target_properties(adamw PROPERTIES OUTPUT_NAME adamw_cpu)
if(SKBUILD_STATE STREQUAL "editable")
  # An editable install imports the Python files from the source tree: the library belongs beside them.
  set_target_properties(adamw ${cuda_libraries} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_SOURCE_DIR}/pyadamw/lib)
  return()
endif()
install(TARGETS adamw ${cuda_libraries} LIBRARY DESTINATION pyadamw/lib)

set(components)
# adamw_component(NAME VERSION LICENSE SCOPE DESCRIPTION). Scope "excluded": it was used to build, and is not inside.
function(adamw_component name version license scope description)
  file(CONFIGURE OUTPUT component.json @ONLY CONTENT [[
    {
      "type": "library", "bom-ref": "@name@", "name": "@name@", "version": "@version@", "scope": "@scope@",
      "licenses": [@license@],
      "description": "@description@"
    }]])
  file(READ ${CMAKE_CURRENT_BINARY_DIR}/component.json component)
  set(components ${components} "${component}" PARENT_SCOPE)
endfunction()

if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  adamw_component("gcc-runtime" ${CMAKE_CXX_COMPILER_VERSION} [[{"expression": "GPL-3.0-or-later WITH GCC-exception-3.1"}]] required
                  "libstdc++ and libgcc, linked statically into each library")
endif()
foreach(library IN LISTS cuda_libraries)
  get_target_property(version ${library}_objects ADAMW_CUDA_VERSION)
  adamw_component("cuda-compiler-${version}" ${version} [[{"license": {"name": "NVIDIA CUDA Toolkit EULA"}}]] excluded
                  "compiled the kernels of lib${library}.so (nothing of it is linked)")
endforeach()
list(JOIN components ",\n" components)
file(CONFIGURE OUTPUT libadamw.cdx.json @ONLY CONTENT [[
{
  "bomFormat": "CycloneDX",
  "specVersion": "1.6",
  "version": 1,
  "metadata": {
    "component": {
      "type": "library", "bom-ref": "pyadamw", "name": "pyadamw", "version": "@PROJECT_VERSION@",
      "licenses": [{"license": {"id": "MIT"}}],
      "purl": "pkg:pypi/pyadamw@@PROJECT_VERSION@"
    }
  },
  "components": [
@components@
  ]
}
]])
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/libadamw.cdx.json DESTINATION ${SKBUILD_METADATA_DIR}/sboms)
