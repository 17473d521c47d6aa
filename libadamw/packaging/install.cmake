# Owns what `cmake --install` gives to C and C++ programs: libraries, header, the CMake package and the pkg-config file. Nothing
# of it names the place where it lies, so that the installed tree can be moved. It must not know of wheels.

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/adamw)

# The CMake package has a component for each library, with a file of its own: packagers leave out what they do not want.
function(adamw_install_component name target)
  install(TARGETS ${target} EXPORT adamw-${name})
  install(EXPORT adamw-${name} FILE adamw-${name}.cmake NAMESPACE adamw:: DESTINATION ${package_dir})
endfunction()

set_target_properties(adamw ${cuda_libraries} PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${ADAMW_ABI_VERSION})
adamw_install_component(shared adamw)
if(ADAMW_INSTALL_STATIC)
  adamw_install_component(static adamw_static)
endif()
foreach(library IN LISTS cuda_libraries)
  string(REPLACE adamw_ "" component ${library})
  adamw_install_component(${component} ${library})
endforeach()
install(FILES include/adamw.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

configure_package_config_file(libadamw/packaging/adamw-config.cmake.in adamw-config.cmake INSTALL_DESTINATION ${package_dir}
                              PATH_VARS CMAKE_INSTALL_LIBDIR NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(adamw-config-version.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/adamw-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/adamw-config-version.cmake
        DESTINATION ${package_dir})

file(RELATIVE_PATH up /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" up "${up}")
list(TRANSFORM static_libraries PREPEND -l REGEX "^[^-]" OUTPUT_VARIABLE static_link_options)
string(JOIN " " static_link_options ${static_link_options})
configure_file(libadamw/packaging/libadamw.pc.in libadamw.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/libadamw.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
