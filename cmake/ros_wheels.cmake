# Given as -DCMAKE_PROJECT_INCLUDE=<this file>.
#
# The targets that ROS wheels export name include directories of the machine the wheels were built on, and CMake
# refuses to generate while a target names a directory that does not exist. Drop those at the end of the configure
# step. In a ROS installation every directory exists, so nothing is dropped.

function(_drop_missing_include_directories)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT directories)
      continue()
    endif()
    set(existing)
    foreach(directory IN LISTS directories)
      if(directory MATCHES "\\$<" OR EXISTS "${directory}")  # a generator expression is not a path yet
        list(APPEND existing "${directory}")
      endif()
    endforeach()
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${existing}")
  endforeach()
endfunction()

cmake_language(DEFER CALL _drop_missing_include_directories)
